//! A guest that writes numbered lines to its disk while nodes fail under it.

use crate::cloud::{Lab, Server};
use crate::wire::Wire;
use anyhow::{Result, ensure};

/// From each boot on the guest answers on port 7000 and writes numbered lines to its disk, each with what tells the boot.
pub const WRITER: &str = "cat > /root/writer <<\"E\"\n#!/bin/sh\nn=$(tail -n 1 /root/lines 2>/dev/null | cut -d\" \" -f1)\n\
    n=${n:-0}\nb=$(cat /proc/sys/kernel/random/boot_id)\nwhile :; do n=$((n+1)); echo \"$n $b\" >> /root/lines; sync; \
    usleep 100000; done\nE\nchmod 755 /root/writer; echo \"::respawn:/root/writer\" >> /etc/inittab; \
    echo \"::respawn:/usr/bin/nc -ll -p 7000 -e /usr/bin/cat\" >> /etc/inittab; sync; kill -HUP 1";
/// The last line that is on the disk for certain.
pub const LAST: &str = "l=$(tail -n 1 /root/lines); sync; echo $l";

/// The next number of a xorshift: all that is asked of it is that a seed gives the same rounds again.
pub fn next_random(mut random: u64) -> u64 {
    random ^= random << 13;
    random ^= random >> 7;
    random ^= random << 17;
    random
}

/// The lines on the disk are of one writer, and all that were there for certain still are.
pub fn has_lost_nothing(wire: &mut Wire, lab: &Lab, server: &Server, certain: &[String]) -> Result<()> {
    let lines = wire.guest(lab, server, "cat /root/lines")?;
    let lines: Vec<&str> = lines.lines().collect();
    for (at, line) in lines.iter().enumerate() {
        ensure!(line.starts_with(&format!("{} ", at + 1)), "line {} is {line:?}: there were two writers", at + 1);
    }
    for said in certain {
        ensure!(!said.is_empty() && lines.contains(&said.as_str()), "{said:?} was on the disk and is lost");
    }
    Ok(())
}
