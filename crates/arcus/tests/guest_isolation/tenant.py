"""Makes what a tenant has, with the OpenStack SDK: tenant.py CLOUD PUBLIC_KEY_FILE IMAGE GUEST=ADDRESS[,drive] ...

The network, its range and the fixed addresses are the same for every tenant. Prints the guests as JSON.
"""

import json
import sys

import openstack

USER_DATA = """#!/bin/sh
mkdir -p /www
hostname > /www/name
httpd -p 8080 -h /www
start-stop-daemon -S -b -x /usr/bin/nc -- -ll -p 7000 -e /usr/bin/cat
"""

cloud, key_file, image_name, *wanted = sys.argv[1:]
connection = openstack.connect(cloud=cloud)
network = connection.network.create_network(name="same")
subnet = connection.network.create_subnet(name="same", network_id=network.id, ip_version=4, cidr="10.66.0.0/24")
public = connection.network.find_network("public", ignore_missing=False)
router = connection.network.create_router(name="same", external_gateway_info={"network_id": public.id})
connection.network.add_interface_to_router(router, subnet_id=subnet.id)

groups = {}
for name in ("plain", "web", "front"):
    groups[name] = connection.network.create_security_group(name=name).id


def allow(group, port, **remote):
    connection.network.create_security_group_rule(
        security_group_id=groups[group], direction="ingress", ethertype="IPv4", protocol="tcp",
        port_range_min=port, port_range_max=port, **remote,
    )


allow("plain", 22)
allow("web", 8080, remote_group_id=groups["front"])

with open(key_file) as file:
    connection.compute.create_keypair(name="same", public_key=file.read().strip())
image = connection.image.find_image(image_name, ignore_missing=False)
flavor = connection.compute.find_flavor("arcus.tiny", ignore_missing=False)
guests = {}
for one in wanted:
    name, _, rest = one.partition("=")
    address, _, drive = rest.partition(",")
    port = connection.network.create_port(
        name=name, network_id=network.id, fixed_ips=[{"subnet_id": subnet.id, "ip_address": address}],
        security_group_ids=[groups["plain"]],
    )
    floating = connection.network.create_ip(floating_network_id=public.id, port_id=port.id)
    server = connection.create_server(
        name, image=image, flavor=flavor, nics=[{"port-id": port.id}], key_name="same", userdata=USER_DATA,
        config_drive=bool(drive), auto_ip=False,
    )
    guests[name] = {
        "id": server.id, "fixed": address, "mac": port.mac_address, "floating": floating.floating_ip_address,
    }
for name, guest in guests.items():
    connection.compute.wait_for_server(connection.compute.get_server(guest["id"]), wait=180, interval=0.5)
print(json.dumps(guests))
