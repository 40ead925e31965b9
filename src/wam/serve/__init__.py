"""One server for every robot client: openpi and RoboArena over a websocket, GR00T over ZMQ.

A frame from a socket -> `dialects/` reads it as an `Infer` or a `Reset` -> `service.py` finds its session, chooses the
frames of the training cadence and asks the model -> `dialects/` writes the answer. The model runs in a process of its
own (`worker.py`), kept alive by `supervisor.py`.
"""
