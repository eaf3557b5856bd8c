-- What is held of a node, from hearing of it or not and from what an operator says; its forced_down follows from it.

-- up, suspect, lost, back or dead.
ALTER TABLE nodes ADD COLUMN state TEXT NOT NULL DEFAULT 'up';
ALTER TABLE nodes ADD COLUMN state_at BIGINT NOT NULL DEFAULT 0;
ALTER TABLE nodes ADD COLUMN state_reason TEXT;
-- Too much was lost at once: nothing of it is started elsewhere by itself.
ALTER TABLE nodes ADD COLUMN held BOOLEAN NOT NULL DEFAULT FALSE;
UPDATE nodes SET state = 'dead' WHERE forced_down;
