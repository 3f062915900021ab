"""What the readers in `sources` and the writers in `formats` stand on.

A published data set comes in so: `layouts` and `archives` find its files, `annotations` and `dataset` turn what is said
of each image into records, `published` holds them together with the images, and `writer` is the only way into a
new folder data set. `importing` and `exporting` are the interfaces.
"""
