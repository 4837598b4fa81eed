#![allow(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// An image of texts.
struct Tree(BTreeMap<String, String>);

impl Files for Tree {
    fn read(&self, path: &str) -> Option<String> {
        self.0.get(path).cloned()
    }
    fn has(&self, path: &str) -> bool {
        self.0.contains_key(path)
    }
}

fn tree(files: &[(&str, &str)]) -> Tree {
    let files = files.iter();
    Tree(
        files
            .map(|(path, text)| ((*path).into(), (*text).into()))
            .collect(),
    )
}

fn read(files: &[(&str, &str)]) -> Menu {
    Menu::read(&tree(files)).unwrap()
}

/// A menu of one file.
fn isolinux(text: &str) -> Menu {
    read(&[("/boot/isolinux/isolinux.cfg", text)])
}

fn grub(text: &str) -> Menu {
    read(&[("/boot/grub/grub.cfg", text)])
}

fn default(menu: &Menu) -> &Entry {
    menu.entry(None).unwrap()
}

#[test]
fn tinycores_menu_is_read() {
    let menu = isolinux(
        "display boot.msg\ndefault microcore\nlabel microcore\n\tkernel /boot/vmlinuz\n\tinitrd /boot/core.gz\n\
         \tappend loglevel=3\n\nlabel mc\n\tkernel /boot/vmlinuz\n\tappend initrd=/boot/core.gz loglevel=3\n\
         implicit 0\t\nprompt 1\ntimeout 300\nF1 boot.msg\n",
    );
    let [first, second] = menu.entries.as_slice() else {
        panic!("{menu:?}")
    };
    assert_eq!(first.kernel, "/boot/vmlinuz");
    assert_eq!(first.initrds, ["/boot/core.gz"]);
    assert_eq!(first.cmdline, "loglevel=3");
    assert_eq!(second.name.as_deref(), Some("mc"));
    assert_eq!(
        (&second.initrds, &second.cmdline),
        (&first.initrds, &first.cmdline)
    );
    assert_eq!(menu.default, 0);
    assert_eq!(menu.entry(Some("mc")), Some(second));
    assert_eq!(menu.entry(Some("2")), Some(second));
    assert_eq!(menu.entry(Some("3")), None);
    assert_eq!(menu.entry(Some("0")), None);
}

#[test]
fn a_menu_of_included_menus_has_the_default_that_its_menu_program_shows() {
    let menu = read(&[
        (
            "/isolinux/isolinux.cfg",
            "path \ninclude menu.cfg\ninclude gone.cfg\nDEFAULT vesamenu.c32\nprompt 0\n",
        ),
        (
            "/isolinux/menu.cfg",
            "menu title Installer\ninclude txt.cfg\nmenu begin advanced\n menu label ^Advanced options\n\
             \tmenu title Advanced\n label mainmenu\n  menu label ^Back..\n  menu exit\n include sub/x.cfg\n\
             menu end\nlabel help\n\ttext help\n label no\n kernel no\n\tendtext\n\tconfig prompt.cfg\n",
        ),
        (
            "/isolinux/txt.cfg",
            "label text\n menu label Te^xt\n kernel linux\n append vga=788 initrd=initrd.gz --- quiet\n\
             LABEL gui\n MENU LABEL ^Graphical\n MENU DEFAULT\n LINUX ../gui/linux mem=1G\n\
             INITRD ucode.img,/gui/initrd.gz\n",
        ),
        (
            "/isolinux/sub/x.cfg",
            "default rescue\nlabel rescue\n menu default\n kernel linux\n append -\n",
        ),
    ]);
    let names: Vec<_> = menu.entries.iter().map(Entry::word).collect();
    assert_eq!(names, ["text", "gui", "rescue"]);
    assert_eq!(menu.entries[0].kernel, "/isolinux/linux");
    assert_eq!(menu.entries[0].title, "Text");
    assert_eq!(menu.entries[0].cmdline, "vga=788 --- quiet");
    let gui = default(&menu);
    assert_eq!(
        (gui.title.as_str(), gui.cmdline.as_str()),
        ("Graphical", "mem=1G")
    );
    assert_eq!(gui.kernel, "/gui/linux");
    assert_eq!(gui.initrds, ["/isolinux/ucode.img", "/gui/initrd.gz"]);
    assert_eq!(menu.entries[2].path(), "Advanced options > rescue");
    assert_eq!(
        menu.entry(Some("Advanced options > rescue"))
            .unwrap()
            .cmdline,
        ""
    );
}

#[test]
fn what_isolinux_starts_when_nobody_chooses() {
    let labels = "label a\nkernel a\nappend 1\nlabel b\nkernel b\nlabel c\nkernel c.c32\n";
    let kernel = |head: &str| {
        default(&isolinux(&format!("{head}\n{labels}")))
            .kernel
            .clone()
    };
    assert_eq!(kernel(""), "/boot/isolinux/a");
    assert_eq!(kernel("default b"), "/boot/isolinux/b");
    assert_eq!(kernel("default b\nappend all"), "/boot/isolinux/b");
    assert_eq!(kernel("default nothing\nontimeout b"), "/boot/isolinux/b");
    assert_eq!(
        kernel("default c"),
        "/boot/isolinux/a",
        "no Linux: the first that is"
    );
    let menu = isolinux(&format!("default b two\nappend all\n{labels}"));
    assert_eq!(default(&menu).cmdline, "all two");
    assert_eq!(menu.entries[0].cmdline, "1");
    // No label: a kernel with its options.
    let menu = read(&[
        ("/syslinux.cfg", "default vmlinuz initrd=i.gz quiet"),
        ("/vmlinuz", ""),
    ]);
    assert_eq!(
        (menu.file.as_str(), menu.entries.len()),
        ("/syslinux.cfg", 1)
    );
    assert_eq!(default(&menu).initrds, ["/i.gz"]);
    assert_eq!(default(&menu).cmdline, "quiet");
}

#[test]
fn a_menu_that_leads_to_another_is_followed() {
    let menu = read(&[
        (
            "/boot/syslinux/syslinux.cfg",
            "DEFAULT select\nLABEL select\nCOM32 whichsys.c32\nAPPEND -pxe- pxe -sys- sys -iso- sys\n\
             LABEL pxe\nCONFIG pxe.cfg\nLABEL sys\nCONFIG sys.cfg\n",
        ),
        (
            "/boot/syslinux/sys.cfg",
            "LABEL arch\nLINUX /arch/vmlinuz\n",
        ),
        ("/boot/syslinux/pxe.cfg", "LABEL wrong\nLINUX /wrong\n"),
    ]);
    assert_eq!(default(&menu).kernel, "/arch/vmlinuz");
    // One that leads to itself ends.
    let round = "label a\nconfig isolinux.cfg\nlabel b\nkernel b\n";
    let menu = isolinux(&format!("default a\n{round}"));
    assert_eq!(default(&menu).word(), "b");
    let round = "label a\ncom32 whichsys.c32\nappend -iso- a\nlabel b\nkernel b\n";
    assert_eq!(
        default(&isolinux(&format!("default a\n{round}"))).word(),
        "b"
    );
}

#[test]
fn grubs_quotes_variables_and_conditions_are_understood() {
    let script = r#"
set default="1>two"   # a comment
set opts="quiet splash"
if [ "$grub_platform" = "efi" ]; then
  menuentry 'Firmware' { fwsetup }
elif loadfont $font && true; then set theme=x
fi
if test -e /no/such -o ! -f /casper/vmlinuz; then set opts=wrong; else set more='$not'; fi
function pick {
  set dir="$1"
}
pick /casper
menuentry "Try \"it\"" --class os --hotkey=t $menuentry_id_option 'try' {
	linux	($root)$dir/vmlinuz ${opts} "a b" "$opts" name=it\'s $more --- $none
	initrd	$dir/ucode.img $dir/initrd
}
submenu --class x 'More ...' {
  menuentry 'One' { linux16 /boot/memtest }
  menuentry 'Two' --id two {
    search --no-floppy --set=here --file /casper/vmlinuz
    linux ($here)/casper/vmlinuz \
       two
  }
  menuentry 'Off' { halt; }
}
source $prefix/more.cfg
"#;
    let files = [("/boot/grub/grub.cfg", script), ("/casper/vmlinuz", "")];
    let menu = read(&files);
    let titles: Vec<_> = menu.entries.iter().map(Entry::path).collect();
    assert_eq!(titles, ["Try \"it\"", "More ... > One", "More ... > Two"]);
    let first = &menu.entries[0];
    assert_eq!(first.name.as_deref(), Some("try"));
    assert_eq!(first.kernel, "/casper/vmlinuz");
    assert_eq!(first.initrds, ["/casper/ucode.img", "/casper/initrd"]);
    assert_eq!(
        first.cmdline,
        r#"quiet splash "a b" "quiet splash" name=it\'s $not ---"#
    );
    assert_eq!(default(&menu).word(), "two");
    assert_eq!(default(&menu).cmdline, "two");
}

#[test]
fn grubs_default_is_a_number_an_id_or_a_title() {
    let items = "menuentry A --id a { linux /a\n}\nsubmenu S { menuentry B { linux /b; }\n}\n\
                 menuentry 'C D' { linux /c; }\nmenuentry Off { halt; }\n";
    let kernel = |head: &str| default(&grub(&format!("{head}\n{items}"))).kernel.clone();
    for (head, kernel_is) in [
        ("", "/a"),
        ("set default=0", "/a"),
        ("set default=1", "/b"),
        ("set default='1>0'", "/b"),
        ("default='S>B'", "/b"),
        ("set default='C D'", "/c"),
        ("set default=2", "/c"),
        ("set default=3", "/a"),
        ("set default=99", "/a"),
        ("set default=\"${saved_entry}\"", "/a"),
        ("for n in 0 2; do set default=$n; done", "/c"),
    ] {
        assert_eq!(kernel(head), kernel_is, "{head}");
    }
}

#[test]
fn isolinux_comes_before_grub_unless_it_starts_no_linux() {
    let (isolinux, grub) = ("/isolinux/isolinux.cfg", "/boot/grub2/grub.cfg");
    let script = "menuentry G { linux /g\n}";
    let menu = read(&[(isolinux, "label i\nkernel i"), (grub, script)]);
    assert_eq!(menu.file, isolinux);
    let menu = read(&[(isolinux, "label i\nlocalboot 0"), (grub, script)]);
    assert_eq!(menu.file, grub);
    assert_eq!(Menu::read(&tree(&[])), Err(NoMenu::None));
    let none = Menu::read(&tree(&[(isolinux, "label i\nlocalboot 0"), (grub, "")]));
    assert_eq!(none, Err(NoMenu::NoEntries(isolinux.into())));
}

#[test]
fn control_characters_reach_no_terminal() {
    let menu = isolinux("label \x1b[2Ja\r\nkernel \x07k\r\nappend x\x00y\u{9b}z\r\n");
    let script = grub("menuentry 'a\nb' { linux /k\\\n \"x\ny\"\n}");
    assert_eq!(default(&script).title, "a b");
    assert_eq!(default(&script).cmdline, "\"x y\"");
    let all = format!("{menu:?}");
    assert!(
        !all.contains(char::is_control) && !all.contains("\\u{"),
        "{all}"
    );
}

#[test]
fn menus_without_end_come_to_one() {
    // Includes of itself, twice each: 2^16 of them but for the limits.
    let menu = isolinux(&format!(
        "{}label a\nkernel a\n",
        "include isolinux.cfg\n".repeat(2)
    ));
    assert!(menu.entries.len() <= MOST_FILES as usize + 1);
    let many = (0..5000).fold(String::new(), |all, n| {
        format!("{all}label {n}\nkernel k\n")
    });
    assert_eq!(isolinux(&many).entries.len(), MOST_ENTRIES);
    let entry = "menuentry X { linux /k\n}\n";
    assert_eq!(grub(&entry.repeat(5000)).entries.len(), MOST_ENTRIES);
    let twice = "function f { f $@ $@$@; }\nf a b c d e f g h\n";
    let survive = |text: &str| drop(Menu::read(&tree(&[("/boot/grub/grub.cfg", text)])));
    survive(&format!("{twice}{entry}"));
    survive(&format!("function f {{ f; f; }}\nf\n{entry}"));
    survive(&format!(
        "source /boot/grub/grub.cfg\nsource /boot/grub/grub.cfg\n{entry}"
    ));
    survive(&format!(
        "set a=x\n{}{entry}",
        "set a=$a$a$a$a$a$a$a$a\n".repeat(1000)
    ));
    for deep in [
        "submenu x {\n",
        "if true; then ",
        "function f {\n",
        "for x in a b c d; do ",
        "while true; do ",
    ] {
        let text = format!("{entry}{}", deep.repeat(40_000));
        assert_eq!(grub(&text).entries[0].kernel, "/k", "{deep}");
    }
    for stray in [
        "}\n", "fi\n", "done\n", "else\n", "{\n", "\"", "'", "${", "\\",
    ] {
        assert_eq!(grub(&format!("{entry}{stray}")).entries.len(), 1, "{stray}");
    }
    assert_eq!(grub(&format!("}}\nfi\ndone\n{entry}")).entries.len(), 1);
}

/// The bytes of an entry.
fn size(entry: &Entry) -> usize {
    let texts = entry.name.iter().chain(&entry.menus).chain(&entry.initrds);
    let texts = texts.chain([&entry.title, &entry.kernel, &entry.cmdline]);
    texts.map(String::len).sum()
}

#[test]
fn what_a_thousand_entries_inherit_is_limited_for_each() {
    const MUCH: usize = 250 << 10;
    let lines = |n: usize| format!("label {n}\nkernel k\n");
    let labels: String = (0..4000).map(lines).collect();
    let item = "menuentry t { linux /k $a $a $a $a $a $a $a $a $a $a\ninitrd $a $a $a $a; }\n";
    let long = "x".repeat(MUCH);
    let menus = [
        (
            "append",
            isolinux(&format!("append {}\n{labels}", "x ".repeat(MUCH / 2))),
        ),
        ("a word", isolinux(&format!("append {long}\n{labels}"))),
        (
            "initrds",
            isolinux(&format!(
                "append initrd={}\n{labels}",
                "a,".repeat(MUCH / 2)
            )),
        ),
        ("title", isolinux(&format!("menu begin {long}\n{labels}"))),
        (
            "options",
            isolinux(&format!("default 0 {long}\nlabel 0\nkernel k\n")),
        ),
        ("kernel", isolinux(&format!("label 0\nkernel {long}\n"))),
        (
            "variables",
            grub(&format!(
                "set a='{}'\n{}",
                "x ".repeat(2000),
                item.repeat(2000)
            )),
        ),
        (
            "its title",
            grub(&format!("submenu {long} {{\n{}}}\n", item.repeat(1000))),
        ),
    ];
    for (what, menu) in menus {
        assert!(menu.entries.len() <= MOST_ENTRIES, "{what}");
        for entry in &menu.entries {
            assert!(entry.cut, "{what}");
            assert!(size(entry) <= 6 * LONGEST, "{what}: {}", size(entry));
            assert!(entry.initrds.len() <= MOST_INITRDS, "{what}");
        }
    }
    // Those of a person are whole.
    let options = "x ".repeat(LONGEST / 2 - 1);
    let initrds = "/i,".repeat(MOST_INITRDS);
    let menu = isolinux(&format!(
        "label 0\nkernel k\nappend {options}\ninitrd {initrds}\n"
    ));
    let entry = default(&menu);
    assert!(
        !entry.cut && entry.initrds.len() == MOST_INITRDS,
        "{entry:?}"
    );
    let menu = isolinux(&format!("label 0\nkernel k\ninitrd {initrds},/i\n"));
    assert!(default(&menu).cut);
}

const PIECES: [&str; 40] = [
    "label ",
    "kernel ",
    "linux ",
    "append ",
    "initrd=",
    "default ",
    "menu begin ",
    "menu end\n",
    "menu default\n",
    "menu label ^",
    "include ",
    "config ",
    "com32 whichsys.c32 ",
    "-iso- ",
    "text help\n",
    "endtext\n",
    "ontimeout ",
    "isolinux.cfg",
    "menuentry ",
    "submenu ",
    "{",
    "}",
    "\n",
    ";",
    " ",
    "'",
    "\"",
    "\\",
    "$",
    "${",
    "if ",
    "then ",
    "else ",
    "fi ",
    "for ",
    "do ",
    "done ",
    "set default=",
    "function ",
    "source /boot/grub/grub.cfg",
];

proptest! {
    /// Whatever a menu says: it ends, and what it gives can be printed and be asked for.
    #[test]
    fn any_menu_comes_to_an_end(
        pieces in prop::collection::vec(prop_oneof![
            8 => (0..PIECES.len()).prop_map(|n| PIECES[n].to_owned()),
            2 => "[a-z0-9>/.=]{1,6}",
            1 => any::<String>(),
        ], 0..200),
    ) {
        let text = pieces.concat();
        let files = [("/isolinux.cfg", text.as_str()), ("/boot/grub/grub.cfg", text.as_str())];
        for path in ["/isolinux.cfg", "/boot/grub/grub.cfg"] {
            let tree = tree(&files);
            let reading = Reading::new(&tree);
            let text = reading.text(path).unwrap();
            let read = if path.starts_with("/i") { isolinux::read } else { grub::read };
            let (entries, default) = read(&reading, path, &text);
            prop_assert!(entries.len() <= MOST_ENTRIES);
            prop_assert!(default.is_none_or(|n| n < entries.len()));
            for entry in entries {
                prop_assert!(entry.kernel.starts_with('/') && !entry.kernel.contains("/.."));
                let printed = entry.path() + &entry.cmdline;
                prop_assert!(!printed.contains(char::is_control));
            }
        }
    }
}
