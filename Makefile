# What a person does with Outboard. CARGO_TARGET_DIR, PREFIX and DESTDIR are honoured.

PREFIX ?= /usr/local
CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)
AT = $(DESTDIR)$(PREFIX)
COMPLETIONS = $(addprefix $(AT)/share/,bash-completion/completions/outboard \
	zsh/site-functions/_outboard fish/vendor_completions.d/outboard.fish)
# Where systemd looks: a home's is its user's own, to run that user's VMs.
OWN := $(filter $(HOME)/.local,$(PREFIX))
UNIT = $(AT)/$(if $(OWN),share/systemd/user,lib/systemd/system)/outboard@.service
OWN_UNIT := -e '/^\#/d' -e '/^UnsetEnvironment/d' -e 's|multi-user|default|'
DAEMONS := outboard-block outboard-net outboard-console outboard-plugin-host

help: ## What there is to make
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile

build: ## The VMM and its daemons, optimised
	$(CARGO) build --release --locked -p outboard $(addprefix -p ,$(DAEMONS))

demo: ## Boot a Debian kernel with every device in a daemon, and see it used
	tests/demo/demo.sh

test: ## Every suite: units, conformance, bare metal on KVM, Linux in the nested rig
	tests/run

test-long: ## Hours of fuzzing, hostile guests and repeated conformance (MINUTES=10 each target)
	tests/long $(MINUTES)

lint: ## Formatting, clippy, documentation, dependencies
	tests/lint

bench: ## What docs/bench.md shows, measured on this machine; a page with plots
	$(CARGO) build --release --locked -p outboard -p outboard-console -p outboard-plugin-host \
		-p outboard-bench -p outboard-bench-null -p outboard-block -p outboard-net
	tests/bench/bench.sh

docs: build ## docs/cli.md, from what the programs say of themselves
	tests/cli-reference $(TARGET)/release >docs/cli.md

header: ## device-sdk/include/outboard_plugin.h, from the plugin ABI's source
	OUTBOARD_WRITE_HEADER=1 $(CARGO) test --locked -q -p outboard-header-tests

# Programs that are built already: OUTBOARD_BIN_DIR=target/debug make install.
BUILT := $(or $(OUTBOARD_BIN_DIR),$(TARGET)/release)

install: $(if $(OUTBOARD_BIN_DIR),,build) ## Into PREFIX (/usr/local): programs, manual pages, completions, a systemd unit
	install -Dm755 $(BUILT)/outboard $(AT)/bin/outboard
	for daemon in $(DAEMONS); do \
		install -Dm755 $(BUILT)/$$daemon $(AT)/libexec/outboard/$$daemon && \
		ln -sf ../libexec/outboard/$$daemon $(AT)/bin/$$daemon || exit 1; \
	done
	$(BUILT)/outboard man --out $(AT)/share/man/man1
	install -d $(dir $(COMPLETIONS))
	$(BUILT)/outboard completions bash >$(word 1,$(COMPLETIONS))
	$(BUILT)/outboard completions zsh >$(word 2,$(COMPLETIONS))
	$(BUILT)/outboard completions fish >$(word 3,$(COMPLETIONS))
	install -d $(dir $(UNIT))
	sed -e 's|/usr/local|$(PREFIX)|' $(if $(OWN),$(OWN_UNIT)) vmm/systemd/outboard@.service >$(UNIT)

uninstall: ## What `make install` put there
	rm -f $(addprefix $(AT)/bin/,outboard $(DAEMONS)) $(AT)/share/man/man1/outboard.1 $(AT)/share/man/man1/outboard-*.1 \
		$(COMPLETIONS) $(UNIT)
	rm -f $(addprefix $(AT)/libexec/outboard/,$(DAEMONS))
	[ ! -d $(AT)/libexec/outboard ] || rmdir --ignore-fail-on-non-empty $(AT)/libexec/outboard

.PHONY: help build demo test test-long bench lint docs header install uninstall
