"""Images and captions: the embedded scenes, the folder data set, the loader."""
