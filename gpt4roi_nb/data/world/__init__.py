"""The generated world on disk: pictures, exact masks, and the annotation files of every dataset, in their own forms.

`write.write_world` writes a world. One module a dataset, or a few alike, says what a picture adds to its files.
"""
