-- A record is its JSON text; the columns beside it are drawn from that text, so the two can't disagree. They are what
-- is looked up and what must be unique. A field that is added to a record needs no migration if it has a default.

CREATE TABLE network (
    data TEXT NOT NULL CHECK (json_valid(data)),
    id   TEXT NOT NULL UNIQUE GENERATED ALWAYS AS (data ->> '$.id') STORED,
    name TEXT NOT NULL UNIQUE GENERATED ALWAYS AS (data ->> '$.name') STORED
) STRICT;

CREATE TABLE sandbox (
    data TEXT NOT NULL CHECK (json_valid(data)),
    id   TEXT NOT NULL UNIQUE GENERATED ALWAYS AS (data ->> '$.id') STORED,
    name TEXT NOT NULL UNIQUE GENERATED ALWAYS AS (data ->> '$.name') STORED
) STRICT;

CREATE TABLE endpoint (
    data    TEXT NOT NULL CHECK (json_valid(data)),
    id      TEXT NOT NULL UNIQUE GENERATED ALWAYS AS (data ->> '$.id') STORED,
    network TEXT NOT NULL GENERATED ALWAYS AS (data ->> '$.network') STORED REFERENCES network (id),
    sandbox TEXT GENERATED ALWAYS AS (data ->> '$.sandbox') STORED REFERENCES sandbox (id),
    name    TEXT NOT NULL GENERATED ALWAYS AS (data ->> '$.name') STORED,
    UNIQUE (network, sandbox),
    UNIQUE (network, name)
) STRICT;
CREATE INDEX endpoint_of_sandbox ON endpoint (sandbox);

CREATE TABLE lease (
    pool     TEXT NOT NULL,
    address  TEXT NOT NULL,
    endpoint TEXT REFERENCES endpoint (id) ON DELETE CASCADE,
    PRIMARY KEY (pool, address)
) STRICT, WITHOUT ROWID;
CREATE INDEX lease_of_endpoint ON lease (endpoint);
