"""Rules that choose entries. One registered class a file; parts.py is shared by those of several parts."""
