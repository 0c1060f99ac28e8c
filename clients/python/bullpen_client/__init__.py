"""A typed gRPC client of the Bullpen inference server."""

from bullpen_client.client import (BullpenError, Client, Completion, ExpertCache, ExpertCacheLayer,
                                   Finish, Model, Options, Part, Sampling, Token)

__all__ = ["BullpenError", "Client", "Completion", "ExpertCache", "ExpertCacheLayer", "Finish",
           "Model", "Options", "Part", "Sampling", "Token"]
