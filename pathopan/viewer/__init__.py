"""Look at a finished run in a browser on the same machine: ``pathopan view OUT``.

::

    serve.py     a free port on 127.0.0.1, a token, a browser window
    app.py       which address gives what, and who may ask
    answers.py   rows and numbers, ready to be shown
    gallery.py   slides that are being looked at, and what is kept in memory of each
    layers.py    tiles of label maps and densities as colored PNG
    pictures.py  pixels of a slide, for several threads at once
    plane.py     where a tile lies
    static/      the page; OpenSeadragon, with its licence

Nothing is written. Pixels come from the slide as long as it lies where the run found it, else from the stored picture.
"""
