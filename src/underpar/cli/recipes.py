"""recipes list, show, from-env."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(help="List, resolve and convert recipes.", no_args_is_help=True)


@app.command("list")
def list_() -> None:
    """The presets, each with its first line."""
    from underpar.recipe.presets import PRESETS

    width = max(map(len, PRESETS))
    for name, preset in PRESETS.items():
        first = (preset.__doc__ or "").strip().splitlines()[0]
        typer.echo(f"{name:<{width}}  {first}")


@app.command()
def show(
    recipe: Annotated[str, typer.Argument(metavar="PRESET|FILE.toml", help="What to show.")],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a recipe key; may be repeated."),
    ] = None,
) -> None:
    """The resolved recipe, its parameters by role, and the artifact bytes to expect."""
    from underpar.artifact.estimate import describe
    from underpar.recipe.load import resolve, to_toml
    from underpar.recipe.plain import digest

    resolved = resolve(recipe, set_ or [])
    typer.echo(to_toml(resolved))
    typer.echo(f"# digest {digest(resolved)}")
    typer.echo(describe(resolved))


@app.command("from-env")
def from_env(
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME=VALUE]...", help="Default: the process environment."),
    ] = None,
    base: Annotated[str, typer.Option(help="Preset that the variables change.")] = "pr1413",
) -> None:
    """Turn the competition's environment variables into a recipe file (TOML on stdout)."""
    from underpar import dist
    from underpar.recipe import from_env as converter
    from underpar.recipe.load import resolve

    names = converter.parse(settings) if settings else converter.pick(dist.environment())
    typer.echo(converter.to_toml(converter.from_env(names, resolve(base))))
