"""How is a bundle put online: which requests does a server take, which model answers, and who may change that?"""

from prunus.serve.serve_settings import ClientLimits, ServeSettings
from prunus.serve.start import serve
from prunus.serve.traffic.comparison import Promise
from prunus.serve.traffic.model_traffic import Pair

__all__ = ["ClientLimits", "Pair", "Promise", "ServeSettings", "serve"]
