"""The one command, `fedsparse`; only here do errors become exits."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from fedsparse import __version__
from fedsparse.cli.audit import audit
from fedsparse.cli.pki import HostOption, PassphraseOption, pki
from fedsparse.errors import FedsparseError, NotAdmittedError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Federated, on-prem fine-tuning: plants train sparse adapters on data that never leaves them.",
)
server = typer.Typer(no_args_is_help=True, help="The operator's side: hub, strategy, registry.")
client = typer.Typer(no_args_is_help=True, help="The plant's side: gateway, trainer, Flower node.")
client_data = typer.Typer(no_args_is_help=True, help="The files that this plant trains on, and what pins them.")
client.add_typer(client_data, name="data")
registry = typer.Typer(no_args_is_help=True, help="Adapter versions.")
peft = typer.Typer(no_args_is_help=True, help="Adapters to and from Hugging Face PEFT.")
for name, group in (
    ("server", server),
    ("client", client),
    ("audit", audit),
    ("registry", registry),
    ("pki", pki),
    ("peft", peft),
):
    app.add_typer(group, name=name)

ConfigOption = Annotated[Path, typer.Option("--config", "-c", help="Settings file (TOML).")]


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
) -> None:
    if version:
        from fedsparse.kernels import COMPILED

        typer.echo(f"fedsparse {__version__} ({'loops compiled' if COMPILED else 'loops in NumPy'})")
        raise typer.Exit


@app.command()
def demo(
    folder: Annotated[Path, typer.Option(help="Where everything of the run is written.")] = Path("runs/demo"),
    rounds: Annotated[int, typer.Option(min=1, max=1000, help="Rounds of the federation.")] = 8,
    alone: Annotated[
        bool, typer.Option(help="Also train each plant alone with the same budget, to compare.")
    ] = True,
    settings: Annotated[
        Path | None,
        typer.Option(
            help="TOML file with the tables adapter, training and aggregation, as in federation.toml: "
            "another kind of adapter, another density."
        ),
    ] = None,
) -> None:
    """Run a whole federation on this machine: three plants, one hub, real images of solar cells.

    Writes FOLDER/summary.json and FOLDER/summary.html. Ctrl-C stops every process that was started.
    """
    from fedsparse.cli.demo import run_demo

    run_demo(folder, rounds, alone=alone, settings=settings, console=Console())


@app.command()
def train(
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", help="Settings file (TOML); by default train.toml."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of images with one sub-folder per class, manifest, dataset or text file."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Folder where adapter and report are written; by default runs/train."),
    ] = None,
    density: Annotated[
        str | None, typer.Option(help="Share of the adapter's coordinates, e.g. 0.01, or auto to have it chosen.")
    ] = None,
    kind: Annotated[str | None, typer.Option(help="delta, lora or bottleneck.")] = None,
    seed: Annotated[int | None, typer.Option(help="Decides the order of the samples.")] = None,
) -> None:
    """Train a sparse adapter on this machine's own samples, without any server.

    Writes OUTPUT/adapter, OUTPUT/report.html and OUTPUT/report.json. Ctrl-C keeps the best adapter so far.
    Options stand above the settings file. For images --data is enough; texts need task.kind and base.model there.
    """
    from fedsparse.cli.train import Options, run_train

    run_train(Options(config, data, output, density, kind, seed), Console())


@app.command()
def predict(
    adapter: Annotated[Path, typer.Argument(help="Folder of a saved adapter.")],
    path: Annotated[Path, typer.Argument(help="Folder of images, manifest, dataset or text file.")],
    output: Annotated[Path | None, typer.Option(help="CSV file; by default the answers are printed.")] = None,
    column: Annotated[
        str | None,
        typer.Option(help="Column of a manifest or dataset; by default path for images and text for texts."),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            help="Folder of the base model, if elsewhere than where the adapter was trained, or "
            "package.module:function that builds it."
        ),
    ] = None,
) -> None:
    """Apply a saved adapter to samples: a line each with the answer and the probability of every class."""
    from fedsparse.cli.predict import run_predict

    run_predict(adapter, path, output, column, base, Console(stderr=True))


@app.command()
def simulate(
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", help="Settings file (TOML); by default simulate.toml."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of images with one sub-folder per class, manifest, dataset or text file."),
    ] = None,
    plants: Annotated[int | None, typer.Option(help="Among how many plants the samples are shared out.")] = None,
    alpha: Annotated[
        float | None,
        typer.Option(help="How alike the plants are: 0.1 nearly one plant per class, 100 all nearly the same."),
    ] = None,
    rounds: Annotated[int | None, typer.Option(help="Rounds of each federation.")] = None,
    draws: Annotated[int | None, typer.Option(help="How many times the samples are shared out anew.")] = None,
    rule: Annotated[
        list[str] | None, typer.Option(help="Merging rule to compare; may be repeated. By default shrunk.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder of results; by default runs/simulate. A run goes on where it was.")
    ] = None,
) -> None:
    """Plan a federation: share one set of samples out among virtual plants, and see what federating gains.

    The plants' own trainer, bytes and merging, one after another in this process, without a network. Prints a
    table and writes OUTPUT/simulate.json and, as a plot, simulate.svg. Options stand above the settings file.
    """
    from fedsparse.cli.simulate import Options, run_simulate

    run_simulate(Options(config, data, output, plants, alpha, rounds, draws, tuple(rule or ())), Console())


@server.command("up")
def server_up(config: ConfigOption = Path("federation.toml")) -> None:
    """Start the hub and run the federation's rounds, from the registry's last version on."""
    from fedsparse.cli.up import run_server

    run_server(config, Console())


@client.command("up")
def client_up(config: ConfigOption = Path("site.toml")) -> None:
    """Start this plant: dial the hub, load base model and data, train whenever asked. Ctrl-C stops it.

    Ends with status 77 where the hub, or this site's own policy, refuses the plant, until that is changed.
    """
    from fedsparse.cli.up import run_client

    run_client(config, Console())


@client.command("approve")
def client_approve(
    config: ConfigOption = Path("site.toml"),
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Show the code that Flower will run here, with what changed since it was last approved, and approve it."""
    from fedsparse.cli.approve import run_approve

    run_approve(config, yes=yes, console=Console())


@client.command("erase")
def client_erase(
    entry: Annotated[int, typer.Argument(min=1, help="Number of the entry, as fedsparse audit show has it.")],
    config: ConfigOption = Path("site.toml"),
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete the bytes that an entry of the ledger keeps; the entry stays and says so. Stop the plant first."""
    from fedsparse.cli.erase import run_erase

    run_erase(config, entry, yes=yes, console=Console())


@client.command("probe")
def client_probe(
    config: ConfigOption = Path("site.toml"),
    update: Annotated[
        Path | None, typer.Option(help="File with an update's bytes, as the ledger keeps them under payloads/.")
    ] = None,
    entry: Annotated[
        int | None, typer.Option(min=1, help="Entry of the ledger; by default the last update that left.")
    ] = None,
    limit: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Exit with 1 where the membership advantage may be above, or cannot be told."
        ),
    ] = None,
    samples: Annotated[
        int, typer.Option(min=20, help="Samples trained on, and held out, that are looked at, at most.")
    ] = 512,
    attempts: Annotated[
        int, typer.Option(min=0, max=64, help="Images to seek in the update; 0 leaves that out.")
    ] = 8,
    steps: Annotated[int, typer.Option(min=1, help="Of each attempt.")] = 150,
    output: Annotated[
        Path | None, typer.Option(help="JSON file; by default probe.json in the site's state folder.")
    ] = None,
) -> None:
    """Measure what an update tells of single samples here: membership, and attempts at reconstruction.

    Everything stays on this machine. Base model and data are loaded a second time where the plant runs.
    """
    from fedsparse.cli.probe import Options, run_probe

    if not run_probe(Options(config, update, entry, limit, samples, attempts, steps, output), Console()):
        raise typer.Exit(1)


@client_data.command("manifest")
def client_data_manifest(
    config: ConfigOption = Path("site.toml"),
    output: Annotated[
        Path | None,
        typer.Option(
            help="JSON file; by default the one that data.manifest names, or data-manifest.json beside CONFIG."
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before another manifest is replaced.")] = False,
) -> None:
    """Write down every file that this plant trains on, with size and SHA-256, and their common fingerprint.

    Everything stays on this machine. With the lines that it prints under [data], no other files are trained on.
    """
    from fedsparse.cli.data import run_manifest

    run_manifest(config, output, yes=yes, console=Console())


@client_data.command("check")
def client_data_check(
    manifest: Annotated[
        Path | None, typer.Argument(help="What to compare with; by default what is pinned under [data].")
    ] = None,
    config: ConfigOption = Path("site.toml"),
) -> None:
    """Tell which files were added (+), are missing (-) or were changed (~); exit with 1 where any was."""
    from fedsparse.cli.data import run_check

    if not run_check(config, manifest, Console()):
        raise typer.Exit(1)


IdentityOption = Annotated[Path, typer.Option(help="Folder of certificate and key.")]
AgainOption = Annotated[
    bool, typer.Option("--again", help="Throw a key away whose certificate is still awaited, and make another.")
]
SignedArgument = Annotated[Path, typer.Argument(help="NAME.pem, as it came back from the CA.")]
TrustedOption = Annotated[
    Path | None,
    typer.Option("--ca", help="ca.pem of the federation; by default the one beside the key."),
]


@client.command("enroll")
def client_enroll(
    name: Annotated[str, typer.Argument(help="This plant's name, e.g. kiso.")],
    identity: IdentityOption = Path("identity"),
    passphrase_file: PassphraseOption = None,
    again: AgainOption = False,
) -> None:
    """Make this plant's key, which never leaves it, and a request for its certificate; also to renew them."""
    from fedsparse.cli.enrol import run_enroll
    from fedsparse.security import Role

    run_enroll(Role.PLANT, name, identity, (), passphrase_file, again=again, console=Console())


@client.command("adopt")
@server.command("adopt")
def adopt(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The plant's or the hub's name.")],
    certificate: SignedArgument,
    authority: TrustedOption = None,
    identity: IdentityOption = Path("identity"),
    passphrase_file: PassphraseOption = None,
) -> None:
    """Put a certificate into use with the key that was made for it; what runs takes it up by itself."""
    from fedsparse.cli.enrol import run_adopt
    from fedsparse.security import Role

    trusted = authority or identity / "ca.pem"
    role = Role.HUB if context.parent is not None and context.parent.info_name == "server" else Role.PLANT
    run_adopt(role, name, certificate, trusted, identity, passphrase_file, Console())


@server.command("enroll")
def server_enroll(
    name: Annotated[str, typer.Argument(help="The hub's name, e.g. hub.")],
    host: HostOption = None,
    identity: IdentityOption = Path("identity"),
    passphrase_file: PassphraseOption = None,
    again: AgainOption = False,
) -> None:
    """Make the hub's key, which never leaves it, and a request for its certificate; also to renew them."""
    from fedsparse.cli.enrol import run_enroll
    from fedsparse.security import Role

    run_enroll(Role.HUB, name, identity, tuple(host or ()), passphrase_file, again=again, console=Console())


@registry.command("list")
def registry_list(
    folder: Annotated[Path, typer.Argument(help="A registry folder, e.g. state/registry.")],
) -> None:
    """List adapter versions with their round, rule and quality."""
    from fedsparse.cli.inspect import list_versions

    list_versions(folder, Console())


@registry.command("show")
def registry_show(
    folder: Annotated[Path, typer.Argument(help="A registry folder.")],
    version: Annotated[int, typer.Argument(min=1, help="Version number.")],
) -> None:
    """Show one adapter version: lineage, contributions, metrics, and its tensors."""
    from fedsparse.cli.inspect import show_version

    show_version(folder, version, Console())


@peft.command("export")
def peft_export(
    adapter: Annotated[Path, typer.Argument(help="Folder of a saved adapter: lora, or delta on linear layers.")],
    out: Annotated[Path, typer.Argument(help="New folder, for peft.PeftModel.from_pretrained.")],
    base: Annotated[
        str | None,
        typer.Option(
            help="Folder of the base model, if elsewhere than where the adapter was trained, or "
            "package.module:function that builds it."
        ),
    ] = None,
) -> None:
    """Write a saved adapter as a PEFT folder: lora becomes LoRA, delta becomes SHiRA."""
    from fedsparse.cli.exchange import run_export

    run_export(adapter, out, base, Console())


@peft.command("import")
def peft_import(
    folder: Annotated[Path, typer.Argument(help="PEFT folder, LoRA or SHiRA, with safetensors.")],
    out: Annotated[Path, typer.Argument(help="New folder for the adapter.")],
    base: Annotated[str, typer.Option(help="Folder of the Hugging Face model it goes on, or minilm.")],
    task: Annotated[
        str, typer.Option(help="image-classification, text-classification or causal-lm.")
    ] = "text-classification",
    classes: Annotated[
        list[str] | None, typer.Option("--class", help="Label name, in the order of the head's rows; repeat it.")
    ] = None,
) -> None:
    """Save what a PEFT folder holds as an adapter of ours."""
    from fedsparse.cli.exchange import run_import

    run_import(folder, out, base, task, tuple(classes or ()), Console())


def main() -> None:
    """Entry point of the `fedsparse` command."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # transformers shows one for every loaded model
    try:
        app(prog_name="fedsparse")  # exits by itself: 0, 2 on wrong usage, 130 on Ctrl-C, or what a command says
    except FedsparseError as error:
        from fedsparse.cli.figures import printable

        told = "\n".join(map(printable, str(error).split("\n")))  # names in it may be anybody's
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"error: {told}", markup=False)
        sys.exit(os.EX_NOPERM if isinstance(error, NotAdmittedError) else 1)


if __name__ == "__main__":
    main()
