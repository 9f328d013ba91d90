"""Everything that speaks SQL, and what stands before it.

sources ──> ingest ──> writer ──────────> sqlite | postgres ──> tables     everything but samples
               └─────> spilling ──drain──────┘   │      │
                                              recent  closed               the ring; chunks and roll-ups
                                                        └── keeping        what is dropped, and when
"""
