"""Alarms as OPC UA conditions (OPC 10000-9): nodes, notifications, refresh and methods of what the room knows."""
