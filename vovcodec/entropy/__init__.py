"""Entropy coding: vector to symbols to bytes, steering atoms to bytes. Import the module you need; nothing loads here.

quantizer     step size and symbols of the vector                     (numpy)
symbols       symbols <-> (model bytes, words)                        (numpy, constriction)
positions     steering atoms <-> words                                (numpy, constriction)
range_coder   integer frequencies and the range coder under both      (numpy, constriction)
exp2          exact integer powers of two with fractional exponents   (standard library)
factorized, mixture, proxies   training-time rate and rounding models (torch)
"""
