"""Makes a running cloud ready for tempest and writes its configuration: prepare.py TEMPLATE IMAGE_FILE FOLDER

The cloud is the one that OS_CLIENT_CONFIG_FILE names `arcus-admin`.
"""

import pathlib
import sys

import openstack


def second_image(cloud, image, file):
    """An image with other id: rebuild and filter tests want two."""
    name = image.name + "-second"
    return cloud.image.find_image(name) or cloud.create_image(
        name, filename=file, disk_format="qcow2", container_format="bare", visibility="public", wait=True)


def default_pool(cloud):
    """What `--nic auto` cuts a project's subnet from."""
    if not any(pool.is_default for pool in cloud.network.subnet_pools()):
        cloud.network.create_subnet_pool(
            name="default", prefixes=["10.96.0.0/16"], default_prefix_length=26, is_shared=True, is_default=True)


def newest(cloud, service):
    """The highest microversion that a service offers."""
    versions = cloud.session.get_all_version_data(interface="public", service_type=service)
    found = [
        version["max_microversion"]
        for region in versions.values() for interface in region.values()
        for endpoint in interface.values() for version in endpoint
        if version.get("max_microversion")
    ]
    return max(found, key=lambda text: [int(part) for part in text.split(".")], default="")


def main(template, file, folder):
    cloud = openstack.connect(cloud="arcus-admin")
    config = cloud.config.config
    image = cloud.image.find_image("arcus-tiny", ignore_missing=False)
    flavors = sorted(cloud.compute.flavors(), key=lambda flavor: (flavor.ram, flavor.disk))
    external = next(iter(cloud.network.networks(is_router_external=True)))
    default_pool(cloud)
    values = {
        "FOLDER": folder,
        "ADMIN_PASSWORD": config["auth"]["password"],
        "AUTH_URL": config["auth"]["auth_url"],
        "CA": config["cacert"],
        "REGION": config["region_name"],
        "IMAGE_ID": image.id,
        "IMAGE_ALT_ID": second_image(cloud, image, file).id,
        "FLAVOR_ID": flavors[0].id,
        "FLAVOR_ALT_ID": flavors[1].id,
        "PUBLIC_NET_ID": external.id,
        "PUBLIC_NET_NAME": external.name,
        "NETWORK_EXTENSIONS": ",".join(sorted(extension.alias for extension in cloud.network.extensions())),
        "COMPUTE_MAX": newest(cloud, "compute"),
        "VOLUME_MAX": newest(cloud, "block-storage"),
        "PLACEMENT_MAX": newest(cloud, "placement"),
    }
    lines = pathlib.Path(template).read_text().splitlines(keepends=True)
    # What the cloud does not have keeps tempest's default.
    text = "".join(line for line in lines if not any(f"@{name}@" in line and not value for name, value in values.items()))
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    target = pathlib.Path(folder, "tempest.conf")
    target.touch(mode=0o600)
    target.write_text(text)


main(*sys.argv[1:])
