//! VMs that are defined: a TOML file each, in a folder of the user's, for a person to edit.
//!
//! Paths in it that are relative start in that folder.
//!
//! `$XDG_CONFIG_HOME/outboard/NAME.toml`, else `~/.config/outboard/NAME.toml`; for root
//! `/etc/outboard/NAME.toml`. Beside a name, the file is all there is to a definition.

use std::io;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::config::{Description, is_name, of_keys};
use crate::places::Place;

/// What is wrong with a definition.
#[derive(Debug, thiserror::Error)]
pub enum DefinitionError {
    /// No VM of this name is defined.
    #[error("No VM called '{name}' is defined; outboard define FILE defines one")]
    Unknown {
        /// The name asked for.
        name: String,
    },
    /// A VM of this name is defined already.
    #[error(
        "A VM called '{name}' is defined already; change it by outboard edit {name}, or take it away by outboard undefine {name}"
    )]
    Known {
        /// The name.
        name: String,
    },
    /// There is no place for definitions.
    #[error("There is no place for definitions; set HOME or XDG_CONFIG_HOME to a folder of yours")]
    Homeless,
    /// The description is not a VM's.
    #[error("{0}")]
    Description(String),
    /// The system does not let us.
    #[error("{} cannot be {what}", path.display())]
    System {
        /// `read`, `written`, ...
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Where this user's definitions are.
#[derive(Debug, Clone)]
pub struct Definitions(PathBuf);

impl Definitions {
    /// This user's.
    ///
    /// # Errors
    /// The user has no home.
    pub fn ours() -> Result<Self, DefinitionError> {
        Place::Definitions
            .folder()
            .map(Self)
            .ok_or(DefinitionError::Homeless)
    }

    /// Those in a folder.
    pub fn at(folder: &Path) -> Self {
        Self(folder.into())
    }

    /// The names of all, sorted.
    ///
    /// # Errors
    /// The folder is there and cannot be read.
    pub fn names(&self) -> Result<Vec<String>, DefinitionError> {
        let entries = match std::fs::read_dir(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(system("read", &self.0))?,
        };
        let name = |path: PathBuf| {
            let name = path.file_stem()?.to_str()?.to_owned();
            (path.extension()? == "toml" && is_name(&name)).then_some(name)
        };
        let paths = entries.flatten().map(|entry| entry.path());
        let mut names: Vec<String> = paths.filter_map(name).collect();
        names.sort();
        Ok(names)
    }

    /// The file of the VM of this name.
    ///
    /// # Errors
    /// There is none.
    pub fn find(&self, name: &str) -> Result<PathBuf, DefinitionError> {
        let path = self.path(name);
        if is_name(name) && path.is_file() {
            return Ok(path);
        }
        Err(DefinitionError::Unknown { name: name.into() })
    }

    /// Checks a description and keeps it, under its own name or another.
    ///
    /// # Errors
    /// It is no VM's, or one of its name is defined.
    pub fn define(&self, file: &Path, name: Option<&str>) -> Result<String, DefinitionError> {
        let mut vm = Description::from_file(file).map_err(DefinitionError::Description)?;
        if let Some(name) = name {
            vm.name = Some(name.into());
        }
        let name = check(&mut vm).map_err(|error| in_file(file, error))?;
        let path = self.path(&name);
        std::fs::create_dir_all(&self.0).map_err(system("made", &self.0))?;
        let file = self.written(&path, &text(&vm)?)?;
        // Two at once: the system says which was first.
        match file.persist_noclobber(&path) {
            Ok(_) => Ok(name),
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
                Err(DefinitionError::Known { name })
            }
            Err(error) => Err(system("written", &path)(error.error)),
        }
    }

    /// Puts another text in the place of a definition's, once it is checked.
    ///
    /// # Errors
    /// It is no VM's, or names another.
    pub fn replace(&self, name: &str, with: &str) -> Result<(), DefinitionError> {
        let path = self.find(name)?;
        let mut vm: Description =
            toml::from_str(with).map_err(|error| DefinitionError::Description(of_keys(&error)))?;
        vm.name.get_or_insert_with(|| name.into());
        let named = check(&mut vm)?;
        if named != name {
            return Err(DefinitionError::Description(format!(
                "name: '{named}' would be another VM than '{name}'; define that one from a file of its own"
            )));
        }
        let file = self.written(&path, with)?;
        file.persist(&path)
            .map_err(|error| system("written", &path)(error.error))?;
        Ok(())
    }

    /// Takes a definition away. A VM that runs by it goes on.
    ///
    /// # Errors
    /// There is none.
    pub fn undefine(&self, name: &str) -> Result<(), DefinitionError> {
        let path = self.find(name)?;
        std::fs::remove_file(&path).map_err(system("removed", &path))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(format!("{name}.toml"))
    }

    /// What is to be at `path`, all or nothing, whatever happens meanwhile.
    fn written(&self, path: &Path, text: &str) -> Result<NamedTempFile, DefinitionError> {
        let failed = system("written", path);
        let mut file = NamedTempFile::new_in(&self.0).map_err(&failed)?;
        io::Write::write_all(&mut file, text.as_bytes()).map_err(&failed)?;
        file.as_file().sync_all().map_err(&failed)?;
        Ok(file)
    }
}

/// Resolves a copy, and makes paths absolute.
fn check(vm: &mut Description) -> Result<String, DefinitionError> {
    vm.make_absolute();
    let config = vm.clone().resolve().map_err(DefinitionError::Description)?;
    vm.name = Some(config.name.clone());
    Ok(config.name)
}

/// Says which file is wrong, where that is not said.
fn in_file(file: &Path, error: DefinitionError) -> DefinitionError {
    let file = file.display().to_string();
    match error {
        DefinitionError::Description(why) if !why.contains(&file) => {
            DefinitionError::Description(format!("In {file}: {why}"))
        }
        error => error,
    }
}

fn text(vm: &Description) -> Result<String, DefinitionError> {
    toml::to_string(vm).map_err(|error| DefinitionError::Description(error.to_string()))
}

fn system<'a>(
    what: &'static str,
    path: &'a Path,
) -> impl Fn(io::Error) -> DefinitionError + use<'a> {
    move |source| DefinitionError::System {
        what,
        path: path.into(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(folder: &Path, text: &str) -> PathBuf {
        let path = folder.join("web.toml");
        std::fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn a_definition_is_kept_changed_and_taken_away() {
        let home = tempfile::tempdir().unwrap();
        let vms = Definitions::at(&home.path().join("vms"));
        assert!(vms.names().unwrap().is_empty());
        let from = file(home.path(), "kernel = 'vmlinuz'");
        assert_eq!(vms.define(&from, None).unwrap(), "web");
        assert_eq!(vms.define(&from, Some("db")).unwrap(), "db");
        assert!(matches!(
            vms.define(&from, None),
            Err(DefinitionError::Known { .. })
        ));
        assert_eq!(vms.names().unwrap(), ["db", "web"]);
        let kept = std::fs::read_to_string(vms.find("web").unwrap()).unwrap();
        let kernel = home.path().join("vmlinuz").display().to_string();
        assert!(kept.contains(&kernel), "{kept}");

        let bad = vms.replace("web", "kernle = 'x'").unwrap_err().to_string();
        assert!(bad.contains("kernle"), "{bad}");
        let other = vms.replace("web", "name = 'x'\nkernel = '/k'").unwrap_err();
        assert!(other.to_string().contains("'x'"), "{other}");
        assert_eq!(
            std::fs::read_to_string(vms.find("web").unwrap()).unwrap(),
            kept
        );
        vms.replace("web", "# mine\nkernel = '/k'").unwrap();
        assert!(
            std::fs::read_to_string(vms.find("web").unwrap())
                .unwrap()
                .contains("# mine")
        );

        vms.undefine("web").unwrap();
        assert!(vms.undefine("web").is_err());
        assert!(vms.find("../web").is_err());
        assert_eq!(vms.names().unwrap(), ["db"]);
    }

    #[test]
    fn an_iso_image_is_kept_by_its_whole_path() {
        let home = tempfile::tempdir().unwrap();
        let vms = Definitions::at(&home.path().join("vms"));
        let from = file(home.path(), "cdrom = 'x.iso'\nboot-entry = 'rescue'");
        let name = vms.define(&from, None).unwrap();
        let kept = Description::from_file(&vms.find(&name).unwrap()).unwrap();
        assert_eq!(kept.cdrom, Some(home.path().join("x.iso")));
        assert_eq!(kept.boot_entry.as_deref(), Some("rescue"));
    }

    #[test]
    fn what_is_no_vm_is_not_kept() {
        let home = tempfile::tempdir().unwrap();
        let vms = Definitions::at(&home.path().join("vms"));
        let from = file(home.path(), "kernel = 'k'\ncpus = { count = 0 }");
        let why = vms.define(&from, None).unwrap_err().to_string();
        assert!(
            why.contains(&format!("In {}: cpus: 0", from.display())),
            "{why}"
        );
        assert!(vms.names().unwrap().is_empty());
    }
}
