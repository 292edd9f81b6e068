"""Which self-supervised method, on which part of the data, gives which representation, at what cost?"""
