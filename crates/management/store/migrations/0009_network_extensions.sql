-- Sharing by policy, tags, address groups and scopes, quality of service, port forwarding, and what ports, networks and
-- routers are told besides.

-- Who else may see and use a thing. A thing's own `shared` (and a network's `external`) say the same for everybody at
-- once; they are kept in the transaction that changes these rows.
CREATE TABLE rbac_policies (
    id UUID NOT NULL PRIMARY KEY,
    project_id UUID NOT NULL,
    -- network, subnetpool, qos_policy, security_group, address_group, address_scope
    object_type TEXT NOT NULL,
    object_id UUID NOT NULL,
    -- access_as_shared, access_as_external
    action TEXT NOT NULL,
    -- Every project, or this one.
    everyone BOOLEAN NOT NULL,
    target_id UUID,
    revision BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE UNIQUE INDEX rbac_policies_everyone ON rbac_policies (object_id, action) WHERE everyone;
CREATE UNIQUE INDEX rbac_policies_target ON rbac_policies (target_id, object_id, action);
CREATE INDEX rbac_policies_object ON rbac_policies (object_id);
CREATE INDEX rbac_policies_project ON rbac_policies (project_id, id);

-- What was shared before there were policies. Plain SQL makes no ids, so a policy takes one that is there: its
-- network's, or, where a network is both external and shared, its first subnet's.
INSERT INTO rbac_policies (id, project_id, object_type, object_id, action, everyone, revision, created_at, updated_at)
    SELECT id, project_id, 'network', id, 'access_as_external', TRUE, 1, created_at, updated_at FROM networks WHERE external;
INSERT INTO rbac_policies (id, project_id, object_type, object_id, action, everyone, revision, created_at, updated_at)
    SELECT id, project_id, 'network', id, 'access_as_shared', TRUE, 1, created_at, updated_at FROM networks
    WHERE shared AND NOT external;
INSERT INTO rbac_policies (id, project_id, object_type, object_id, action, everyone, revision, created_at, updated_at)
    SELECT s.id, n.project_id, 'network', n.id, 'access_as_shared', TRUE, 1, n.created_at, n.updated_at
    FROM networks n JOIN subnets s ON s.network_id = n.id WHERE n.shared AND n.external
    AND NOT EXISTS (SELECT 1 FROM subnets t WHERE t.network_id = n.id AND t.id < s.id);
INSERT INTO rbac_policies (id, project_id, object_type, object_id, action, everyone, revision, created_at, updated_at)
    SELECT id, project_id, 'subnetpool', id, 'access_as_shared', TRUE, 1, created_at, updated_at FROM subnet_pools WHERE shared;

CREATE TABLE address_scopes (
    id UUID NOT NULL PRIMARY KEY,
    project_id UUID NOT NULL,
    name TEXT NOT NULL,
    ip_version BIGINT NOT NULL,
    shared BOOLEAN NOT NULL
);
CREATE INDEX address_scopes_project ON address_scopes (project_id, id);

CREATE TABLE address_groups (
    id UUID NOT NULL PRIMARY KEY,
    project_id UUID NOT NULL,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    -- JSON list of ranges.
    addresses TEXT NOT NULL,
    shared BOOLEAN NOT NULL,
    revision BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX address_groups_project ON address_groups (project_id, id);

CREATE TABLE qos_policies (
    id UUID NOT NULL PRIMARY KEY,
    project_id UUID NOT NULL,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    shared BOOLEAN NOT NULL,
    -- Whether the project's new networks get it where none is named.
    is_default BOOLEAN NOT NULL,
    tags TEXT NOT NULL,
    revision BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX qos_policies_project ON qos_policies (project_id, id);
CREATE UNIQUE INDEX qos_policies_default ON qos_policies (project_id) WHERE is_default;

-- At most one limit for each direction, and one mark.
CREATE TABLE qos_rules (
    id UUID NOT NULL PRIMARY KEY,
    policy_id UUID NOT NULL REFERENCES qos_policies (id) ON DELETE CASCADE,
    -- bandwidth_limit, dscp_marking
    kind TEXT NOT NULL,
    -- Seen from the guest; a mark has egress.
    direction TEXT NOT NULL,
    max_kbps BIGINT NOT NULL,
    max_burst_kbps BIGINT NOT NULL,
    dscp_mark BIGINT NOT NULL,
    UNIQUE (policy_id, kind, direction)
);

CREATE TABLE port_forwardings (
    id UUID NOT NULL PRIMARY KEY,
    floating_ip_id UUID NOT NULL REFERENCES floating_ips (id),
    port_id UUID NOT NULL REFERENCES ports (id) ON DELETE CASCADE,
    address TEXT NOT NULL,
    -- tcp, udp
    protocol TEXT NOT NULL,
    internal_min BIGINT NOT NULL,
    internal_max BIGINT NOT NULL,
    external_min BIGINT NOT NULL,
    external_max BIGINT NOT NULL,
    description TEXT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX port_forwardings_floating_ip ON port_forwardings (floating_ip_id, id);
CREATE INDEX port_forwardings_port ON port_forwardings (port_id);

-- What new security groups begin with.
CREATE TABLE default_security_group_rules (
    id UUID NOT NULL PRIMARY KEY,
    description TEXT NOT NULL,
    direction TEXT NOT NULL,
    ethertype TEXT NOT NULL,
    protocol TEXT,
    protocol_number BIGINT,
    port_min BIGINT,
    port_max BIGINT,
    remote_cidr TEXT,
    -- Whether the other side is the new group itself.
    remote_self BOOLEAN NOT NULL,
    in_default BOOLEAN NOT NULL,
    in_others BOOLEAN NOT NULL
);
-- One row once the rules that every cloud begins with were made.
CREATE TABLE default_security_group_rules_made (
    id BIGINT NOT NULL PRIMARY KEY
);

-- The network and router that a project got without asking for more than any network.
CREATE TABLE auto_topologies (
    project_id UUID NOT NULL PRIMARY KEY,
    network_id UUID NOT NULL REFERENCES networks (id) ON DELETE CASCADE,
    router_id UUID NOT NULL REFERENCES routers (id) ON DELETE CASCADE
);

-- Tags are JSON lists, sorted.
ALTER TABLE networks ADD COLUMN tags TEXT NOT NULL DEFAULT '[]';
ALTER TABLE networks ADD COLUMN qos_policy_id UUID REFERENCES qos_policies (id);
ALTER TABLE networks ADD COLUMN dns_domain TEXT NOT NULL DEFAULT '';
ALTER TABLE networks ADD COLUMN zone_hints TEXT NOT NULL DEFAULT '[]';
CREATE INDEX networks_qos_policy ON networks (qos_policy_id) WHERE qos_policy_id IS NOT NULL;
ALTER TABLE subnets ADD COLUMN tags TEXT NOT NULL DEFAULT '[]';
ALTER TABLE subnet_pools ADD COLUMN tags TEXT NOT NULL DEFAULT '[]';
ALTER TABLE subnet_pools ADD COLUMN address_scope_id UUID REFERENCES address_scopes (id);
CREATE INDEX subnet_pools_address_scope ON subnet_pools (address_scope_id) WHERE address_scope_id IS NOT NULL;
ALTER TABLE routers ADD COLUMN tags TEXT NOT NULL DEFAULT '[]';
ALTER TABLE routers ADD COLUMN zone_hints TEXT NOT NULL DEFAULT '[]';
ALTER TABLE ports ADD COLUMN tags TEXT NOT NULL DEFAULT '[]';
ALTER TABLE ports ADD COLUMN qos_policy_id UUID REFERENCES qos_policies (id);
ALTER TABLE ports ADD COLUMN dns_domain TEXT NOT NULL DEFAULT '';
-- JSON list of options that DHCP tells besides.
ALTER TABLE ports ADD COLUMN dhcp_options TEXT NOT NULL DEFAULT '[]';
CREATE INDEX ports_qos_policy ON ports (qos_policy_id) WHERE qos_policy_id IS NOT NULL;
ALTER TABLE security_groups ADD COLUMN tags TEXT NOT NULL DEFAULT '[]';
ALTER TABLE security_groups ADD COLUMN shared BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE security_group_rules ADD COLUMN remote_address_group_id UUID REFERENCES address_groups (id);
CREATE INDEX security_group_rules_address_group ON security_group_rules (remote_address_group_id)
    WHERE remote_address_group_id IS NOT NULL;
ALTER TABLE floating_ips ADD COLUMN tags TEXT NOT NULL DEFAULT '[]';
ALTER TABLE floating_ips ADD COLUMN qos_policy_id UUID REFERENCES qos_policies (id);
ALTER TABLE floating_ips ADD COLUMN dns_domain TEXT NOT NULL DEFAULT '';
CREATE INDEX floating_ips_qos_policy ON floating_ips (qos_policy_id) WHERE qos_policy_id IS NOT NULL;
