"""Published data sets as their authors publish them: one options class and one call each, nothing downloaded."""
