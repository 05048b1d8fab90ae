"""The rules of Matrix: values in, values out. No I/O, clock, randomness, asyncio, logging or globals."""
