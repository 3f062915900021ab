"""The ways to split a text, one file each: registered means known to the settings and to the tests."""
