"""The Flower grid whose clients live in this process, and its clock."""
