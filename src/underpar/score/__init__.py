"""From a model file and a text to a proven number of bits.

``windows`` says who predicts what, ``predictor`` computes distributions, ``ledger`` keeps the
score, ``adapt`` trains on what is scored, ``scorer`` drives the four.
"""
