"""Import of published data sets (`sources`) and export to other formats (`targets`), and what they share.

An import in five steps: `layouts` and `archives` find the files, `annotations` checks their values, `record_builder`
gathers them into records, `published` joins records and images, and `writer` writes the folder data set. `importing`
and `exporting` define the interfaces.
"""
