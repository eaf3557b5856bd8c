//! Each guest gets its own documents, whatever it says that it is.

use crate::tenants::{Guest, Tenants};
use serde_json::Value;

const DOCUMENT: &str = "http://169.254.169.254/openstack/latest/meta_data.json";

pub fn is_of_the_guest_itself(tenants: &Tenants) {
    let Tenants { red_a, red_b, blue, blue_a, .. } = tenants;
    for guest in tenants.guests() {
        assert_eq!(fetched(guest, "")["uuid"], guest.id, "{} got another guest's metadata", guest.name);
    }
    // What proxies would tell a metadata service is not believed.
    let forged = format!("--header 'X-Instance-ID: {}' --header 'X-Forwarded-For: {}'", red_a.id, red_a.fixed);
    assert_eq!(fetched(red_b, &forged)["uuid"], red_b.id);

    let drive = "sudo mkdir -p /mnt; sudo mount -o ro LABEL=config-2 /mnt || sudo mount -o ro /dev/vdb /mnt";
    let document = blue_a.answer(&format!("{drive}; cat /mnt/openstack/latest/meta_data.json; sudo umount /mnt"));
    assert_eq!(parsed(&document)["uuid"], blue_a.id, "the config drive is another guest's");
    let console = blue.run(&["console", "log", "show", &blue_a.name]);
    assert!(console.contains("metadata from config drive"), "the guest did not find its config drive: {console}");
    assert_eq!(red_a.answer("ls /dev/vdb || echo none"), "none", "a guest has a config drive that it did not ask for");
}

fn fetched(guest: &Guest, options: &str) -> Value {
    parsed(&guest.answer(&format!("timeout 10 wget -q -O - {options} {DOCUMENT}")))
}

fn parsed(document: &str) -> Value {
    serde_json::from_str(document).unwrap_or_else(|e| panic!("not metadata: {e}: {document}"))
}
