"""The run-time checker of signatures: beartype, taking an int where a float is asked for, as Python's types do."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
