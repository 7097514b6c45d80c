-- The tables of Docker 1.9's file of this name. Docker declares the references without keeping them; here an entity's
-- edges go with it.

CREATE TABLE linkgraph.entity (
    id text NOT NULL PRIMARY KEY
);

CREATE TABLE linkgraph.edge (
    entity_id text NOT NULL,
    parent_id text NULL,
    name text NOT NULL,
    CONSTRAINT entity_fk FOREIGN KEY (entity_id) REFERENCES entity (id) ON DELETE CASCADE,
    CONSTRAINT parent_fk FOREIGN KEY (parent_id) REFERENCES entity (id) ON DELETE CASCADE
);

CREATE UNIQUE INDEX linkgraph.name_parent_ix ON edge (parent_id, name);
