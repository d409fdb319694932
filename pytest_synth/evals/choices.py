"""Words that an option allows; read at every start of pytest, so nothing is imported here."""

TUNNELS = ("auto", "localhost", "cloudflare_quick", "cloudflare_managed", "cloudflare_managed_lease")
RECORD_MODES = ("off", "none", "once", "new_episodes", "all", "rewrite")
