"""Uniform quantization grids as pure tensor functions, and the values they make."""

from underpar.grid.grid import Clip as Clip
from underpar.grid.grid import Grid as Grid
from underpar.grid.tensors import QuantizedModel as QuantizedModel
from underpar.grid.tensors import QuantizedTensor as QuantizedTensor
