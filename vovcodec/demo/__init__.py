"""The demonstration and the measuring bench: they run the real `vov` commands and look at what comes out.

clip         a clip with camera motion over a photograph
measure      run a command, compare frames
__main__     `make demo`
bench        `make bench`
"""
