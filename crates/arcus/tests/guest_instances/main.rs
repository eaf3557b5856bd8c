//! Clouds on one machine do not meet, and one that was taken down with its data kept goes on where it stopped.

#[path = "../rig/detached.rs"]
#[expect(dead_code, reason = "killing is for another test")]
mod detached;

use anyhow::{Result, ensure};
use detached::Detached;

#[test]
fn clouds_side_by_side_leave_each_other_alone_and_kept_data_comes_back() -> Result<()> {
    let (one, two) = (Detached::new("one", None)?, Detached::new("two", None)?);
    ensure!(one.url != two.url, "the test took one port twice");
    let first_of_one = one.up()?;
    let first_of_two = two.up()?;
    // Each has the same network inside; by its own external range each guest is reached apart.
    ensure!(first_of_one.fixed == first_of_two.fixed, "{first_of_one:?} {first_of_two:?}");
    ensure!(first_of_one.floating != first_of_two.floating, "{first_of_one:?} {first_of_two:?}");
    first_of_one.run("echo one > /home/arcus/mark; sync")?;
    first_of_two.run("echo two > /home/arcus/mark; sync")?;
    let boot = first_of_two.run("cat /proc/sys/kernel/random/boot_id")?;

    one.rest()?;
    ensure!(first_of_two.run("cat /home/arcus/mark")? == "two");
    let again = one.up()?;
    ensure!(again == first_of_one, "the first server is another: {again:?} and not {first_of_one:?}");
    ensure!(again.run("cat /home/arcus/mark")? == "one", "the disk of before is lost");
    one.down()?;

    ensure!(first_of_two.run("cat /home/arcus/mark")? == "two");
    ensure!(first_of_two.run("cat /proc/sys/kernel/random/boot_id")? == boot, "the other cloud's guest started anew");
    two.down()
}
