"""`completion`: scripts for bash, zsh and fish, made from the parser, so that they can never be out of date."""

from __future__ import annotations

import argparse

from procs.cli.arguments import COMMANDS, PROGRAM, STAGE_NAMES, option_names
from procs.cli.outcome import OK

FILES = ("--recording", "--config", "--journal")


def bash() -> str:
    """For bash: source it, or put it where bash-completion looks."""
    cases = "\n".join(f'        {name}) words="{" ".join(option_names(name))} --help" ;;' for name in COMMANDS)
    return f"""_{PROGRAM}() {{
    local words cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}}
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W "{" ".join(COMMANDS)} --help" -- "$cur"))
        return
    fi
    case "$prev" in
        {"|".join(FILES)}) COMPREPLY=($(compgen -f -- "$cur")); return ;;
        --speed) COMPREPLY=($(compgen -W "max 1 10" -- "$cur")); return ;;
    esac
    case "${{COMP_WORDS[1]}}" in
{cases}
    esac
    COMPREPLY=($(compgen -W "$words" -- "$cur"))
    case "${{COMP_WORDS[1]}}" in start|demo|backtest|bench) COMPREPLY+=($(compgen -f -- "$cur")) ;; esac
}}
complete -o filenames -F _{PROGRAM} {PROGRAM}
"""


def zsh() -> str:
    """For zsh: put it as _scalperctl into a folder of $fpath."""
    quoted = "\n".join(f"        '{name}:{_quiet(command.sentence)}'" for name, command in COMMANDS.items())
    cases = "\n".join(f"        {name}) compadd -- {' '.join(option_names(name))} --help ;;" for name in COMMANDS)
    return f"""#compdef {PROGRAM}
_{PROGRAM}() {{
    local -a commands
    commands=(
{quoted}
    )
    if (( CURRENT == 2 )); then
        _describe command commands
        return
    fi
    case "${{words[CURRENT-1]}}" in
        {"|".join(FILES)}) _files; return ;;
    esac
    case "${{words[2]}}" in
{cases}
    esac
    case "${{words[2]}}" in start|demo|backtest|bench) _files ;; esac
}}
compdef _{PROGRAM} {PROGRAM}
"""


def fish() -> str:
    """For fish: put it into ~/.config/fish/completions."""
    lines = [f"complete -c {PROGRAM} -f"]
    for name, command in COMMANDS.items():
        lines.append(f"complete -c {PROGRAM} -n __fish_use_subcommand -a {name} -d '{_quiet(command.sentence)}'")
        for word in option_names(name):
            seen = f"'__fish_seen_subcommand_from {name}'"
            if word.startswith("--"):
                files = " -rF" if word in FILES else ""
                lines.append(f"complete -c {PROGRAM} -n {seen} -l {word[2:]}{files}")
            else:
                lines.append(f"complete -c {PROGRAM} -n {seen} -a {word}")
    return "\n".join(lines) + "\n"


def _quiet(text: str) -> str:
    return text.replace("'", "").replace(":", "")


def completion(args: argparse.Namespace) -> int:
    """The command."""
    print({"bash": bash, "zsh": zsh, "fish": fish}[args.shell](), end="")
    return OK


assert set(STAGE_NAMES) <= set(option_names("restart")), "stages complete as choices"
