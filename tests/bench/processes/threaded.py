"""A module that starts a thread when it is imported, as some packages do."""

import threading
import time

threading.Thread(target=time.sleep, args=(3600,), name="cleaner", daemon=True).start()
