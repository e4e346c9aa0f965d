"""The model: layers, depth schedule, the only forward pass, and the roles of its parameters."""

from underpar.model.cache import Cache
from underpar.model.gpt import GPT, loss, twin
from underpar.model.roles import Role, n_params, parameters_by_role, role_of

__all__ = ["GPT", "Cache", "Role", "loss", "n_params", "parameters_by_role", "role_of", "twin"]
