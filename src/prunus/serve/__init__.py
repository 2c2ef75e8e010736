"""How is a bundle put online: which requests does a server take, which model answers, and who may change that?"""

from prunus.serve.serve_settings import ClientLimits, ServeSettings
from prunus.serve.start import serve

__all__ = ["ClientLimits", "ServeSettings", "serve"]
