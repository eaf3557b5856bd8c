-- Why servers are where they are: the last decisions about each, written with the claim that they led to.

CREATE TABLE placement_decisions (
    server_id UUID NOT NULL REFERENCES servers (id) ON DELETE CASCADE,
    request_id UUID NOT NULL,
    -- What it was decided for, such as create or unshelve.
    occasion TEXT NOT NULL,
    -- The node that was taken; NULL if none could be. It may be gone by now.
    node_id UUID,
    node TEXT,
    -- What was asked, what each filter refused, what spoke for the node, as JSON.
    document TEXT NOT NULL,
    decided_at BIGINT NOT NULL,
    PRIMARY KEY (server_id, request_id)
);
CREATE INDEX placement_decisions_decided ON placement_decisions (server_id, decided_at);
