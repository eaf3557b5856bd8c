-- Networks, subnets, ports, routers, floating IPs and security groups.
-- Addresses and segment numbers are rows of their own with a unique key: to insert the row is to claim the thing.

CREATE TABLE networks (
    id UUID NOT NULL PRIMARY KEY,
    project_id UUID NOT NULL,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    admin_up BOOLEAN NOT NULL,
    shared BOOLEAN NOT NULL,
    external BOOLEAN NOT NULL,
    is_default BOOLEAN NOT NULL,
    mtu BIGINT NOT NULL,
    port_security BOOLEAN NOT NULL,
    -- The VXLAN network identifier; claimed in network_segments.
    segment BIGINT NOT NULL,
    revision BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX networks_project ON networks (project_id, id);
CREATE INDEX networks_open ON networks (id) WHERE shared OR external;
CREATE INDEX networks_name ON networks (name, id);

CREATE TABLE network_segments (
    segment BIGINT NOT NULL PRIMARY KEY,
    network_id UUID NOT NULL REFERENCES networks (id) ON DELETE CASCADE
);

-- Where to look next for a free number; one row.
CREATE TABLE segment_cursor (
    id BIGINT NOT NULL PRIMARY KEY,
    last BIGINT NOT NULL
);
INSERT INTO segment_cursor (id, last) VALUES (1, 0);

CREATE TABLE subnet_pools (
    id UUID NOT NULL PRIMARY KEY,
    project_id UUID NOT NULL,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    -- JSON list of ranges, merged and sorted.
    prefixes TEXT NOT NULL,
    ip_version BIGINT NOT NULL,
    prefix_default BIGINT NOT NULL,
    prefix_min BIGINT NOT NULL,
    prefix_max BIGINT NOT NULL,
    quota BIGINT,
    shared BOOLEAN NOT NULL,
    is_default BOOLEAN NOT NULL,
    revision BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX subnet_pools_project ON subnet_pools (project_id, id);

CREATE TABLE subnets (
    id UUID NOT NULL PRIMARY KEY,
    network_id UUID NOT NULL REFERENCES networks (id),
    project_id UUID NOT NULL,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    ip_version BIGINT NOT NULL,
    cidr TEXT NOT NULL,
    gateway TEXT,
    dhcp BOOLEAN NOT NULL,
    -- JSON: ranges that addresses are drawn from, name servers, routes for guests.
    pools TEXT NOT NULL,
    dns_servers TEXT NOT NULL,
    host_routes TEXT NOT NULL,
    ipv6_ra_mode TEXT,
    ipv6_address_mode TEXT,
    subnet_pool_id UUID REFERENCES subnet_pools (id),
    -- The position that was drawn last: the next draw begins behind it.
    cursor BIGINT NOT NULL,
    revision BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX subnets_network ON subnets (network_id, id);
CREATE INDEX subnets_project ON subnets (project_id, id);
CREATE INDEX subnets_pool ON subnets (subnet_pool_id);

CREATE TABLE routers (
    id UUID NOT NULL PRIMARY KEY,
    project_id UUID NOT NULL,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    admin_up BOOLEAN NOT NULL,
    gateway_network_id UUID REFERENCES networks (id),
    snat BOOLEAN NOT NULL,
    -- JSON: further routes.
    routes TEXT NOT NULL,
    revision BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX routers_project ON routers (project_id, id);
CREATE INDEX routers_gateway ON routers (gateway_network_id);

CREATE TABLE ports (
    id UUID NOT NULL PRIMARY KEY,
    network_id UUID NOT NULL REFERENCES networks (id),
    -- NULL: the port is part of the cloud itself, such as a router's gateway.
    project_id UUID,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    mac TEXT NOT NULL,
    admin_up BOOLEAN NOT NULL,
    status TEXT NOT NULL,
    device_id TEXT NOT NULL,
    device_owner TEXT NOT NULL,
    -- What device_id names, where Arcus itself has made the bond.
    server_id UUID,
    router_id UUID REFERENCES routers (id),
    node_id UUID REFERENCES nodes (id),
    binding_host TEXT NOT NULL,
    binding_profile TEXT NOT NULL,
    vnic_type TEXT NOT NULL,
    port_security BOOLEAN NOT NULL,
    -- JSON: further addresses that the guest may use.
    allowed_pairs TEXT NOT NULL,
    dns_name TEXT NOT NULL,
    delete_with_server BOOLEAN NOT NULL,
    revision BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    UNIQUE (network_id, mac)
);
CREATE INDEX ports_project ON ports (project_id, id);
CREATE INDEX ports_network ON ports (network_id, id);
CREATE INDEX ports_device ON ports (device_id);
CREATE INDEX ports_server ON ports (server_id) WHERE server_id IS NOT NULL;
CREATE INDEX ports_router ON ports (router_id) WHERE router_id IS NOT NULL;
CREATE INDEX ports_node ON ports (node_id) WHERE node_id IS NOT NULL;

CREATE TABLE addresses (
    subnet_id UUID NOT NULL REFERENCES subnets (id),
    address TEXT NOT NULL,
    -- The address as a number that sorts: the last 64 bits, shifted into the signed range.
    position BIGINT NOT NULL,
    port_id UUID NOT NULL REFERENCES ports (id) ON DELETE CASCADE,
    -- The place of this address in the port's list.
    ordinal BIGINT NOT NULL,
    PRIMARY KEY (subnet_id, address)
);
CREATE INDEX addresses_position ON addresses (subnet_id, position);
CREATE INDEX addresses_port ON addresses (port_id);
CREATE INDEX addresses_address ON addresses (address);

CREATE TABLE security_groups (
    id UUID NOT NULL PRIMARY KEY,
    project_id UUID NOT NULL,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    -- The group that each project has from first sight on.
    is_default BOOLEAN NOT NULL,
    revision BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX security_groups_project ON security_groups (project_id, id);
CREATE UNIQUE INDEX security_groups_default ON security_groups (project_id) WHERE is_default;

CREATE TABLE security_group_rules (
    id UUID NOT NULL PRIMARY KEY,
    security_group_id UUID NOT NULL REFERENCES security_groups (id) ON DELETE CASCADE,
    project_id UUID NOT NULL,
    description TEXT NOT NULL,
    direction TEXT NOT NULL,
    ethertype TEXT NOT NULL,
    -- The protocol as its owner wrote it (a name or a number), and its number.
    protocol TEXT,
    protocol_number BIGINT,
    port_min BIGINT,
    port_max BIGINT,
    remote_cidr TEXT,
    remote_group_id UUID REFERENCES security_groups (id),
    -- Everything that makes a rule differ from another one, in one text.
    fingerprint TEXT NOT NULL,
    revision BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    UNIQUE (security_group_id, fingerprint)
);
CREATE INDEX security_group_rules_project ON security_group_rules (project_id, id);
CREATE INDEX security_group_rules_remote ON security_group_rules (remote_group_id) WHERE remote_group_id IS NOT NULL;

CREATE TABLE port_security_groups (
    port_id UUID NOT NULL REFERENCES ports (id) ON DELETE CASCADE,
    security_group_id UUID NOT NULL REFERENCES security_groups (id),
    PRIMARY KEY (port_id, security_group_id)
);
CREATE INDEX port_security_groups_group ON port_security_groups (security_group_id);

CREATE TABLE floating_ips (
    id UUID NOT NULL PRIMARY KEY,
    project_id UUID NOT NULL,
    description TEXT NOT NULL,
    network_id UUID NOT NULL REFERENCES networks (id),
    -- The port that holds the external address.
    holder_id UUID NOT NULL REFERENCES ports (id),
    address TEXT NOT NULL,
    -- The port that the address leads to, by which of its addresses, through which router.
    port_id UUID REFERENCES ports (id),
    fixed_address TEXT,
    router_id UUID REFERENCES routers (id),
    dns_name TEXT NOT NULL,
    revision BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    UNIQUE (network_id, address),
    UNIQUE (port_id, fixed_address)
);
CREATE INDEX floating_ips_project ON floating_ips (project_id, id);
CREATE INDEX floating_ips_router ON floating_ips (router_id);
CREATE INDEX floating_ips_network ON floating_ips (network_id);
