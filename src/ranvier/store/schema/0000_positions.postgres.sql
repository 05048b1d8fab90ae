-- CACHE 1 keeps the numbers in the order in which they are asked for: the argument in store/positions.py needs that.
CREATE SEQUENCE positions AS BIGINT START 1 CACHE 1;
