"""The generated world on disk: images, exact masks, and the annotation files of every dataset, in their own forms.

`write.write_world` writes a world. Each other module says what an image adds to the files of one dataset.
"""
