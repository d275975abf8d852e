"""How good decoded pictures are, against their reference and against classic codecs at the same bytes.

pictures.py  what is compared: a reference and decoded files of any kind, `.vov` included
measures.py  the metrics by name           evaluate.py  the table of `vov eval`
curves.py    rate-distortion curves: slope, crossing points     plot.py  the same as a PNG
networks.py  VGG-16 and AlexNet features; lpips.py, dists.py, fvd.py: learned metrics, with weights from a folder
"""
