"""What is recorded, and what makes it valid. Pure, but for leveldb.py."""
