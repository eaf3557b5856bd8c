-- The shared folder that a server's disks are in; none: they are on its node's own storage. Of a server that is gone it is
-- kept until a node has removed them.
ALTER TABLE servers ADD COLUMN disk_pool TEXT;
