"""How text that fedscape did not write is shown: foreign text, URLs, and secrets, which are never shown.

`text` and `urls` import nothing of fedscape, `secrets` only its errors.
"""
