"""
The demo: many streams on one WebSocket.
"""
