"""From results to alarms: what is wrong, whether somebody knows, and what people did about it (ISA-18.2, OPC 10000-9).

condition  what can be wrong: type, limits, delays, severities, advice
state      how one condition stands: its current state, and branches that still wait to be acknowledged
inputs     a level, and time that passes → the next state and what is to be told
acts       acknowledge, confirm, comment, shelve, suppress, disable → the next state, or why not
room       all conditions of the plant: stores each change, then has it published
"""
