"""
The demo: four streams on one WebSocket.
"""
