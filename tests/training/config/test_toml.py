"""A TOML file fits its model, or an error names the key that does not."""

from typing import Annotated

import pytest
from pydantic import Field, ValidationError

from earmark.errors import RecipeError
from earmark.training.config.toml import Section, load, to_toml


class Leaf(Section):
    width: Annotated[int, Field(gt=0)] = 3
    colour: str = "green"


class Branch(Section):
    leaves: tuple[Leaf, ...] = ()
    first: Leaf = Leaf()
    maybe: Leaf | None = None


class Tree(Section):
    name: str
    height_m: float = 2.0
    branch: Branch = Branch()


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "tree.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_a_file_becomes_its_model(write):
    text = 'name = "fir"\n[branch.first]\nwidth = 5\n'
    text += '[[branch.leaves]]\ncolour = "röt"\n[[branch.leaves]]\nwidth = 1\n'
    tree = load(Tree, write(text))
    leaves = (Leaf(colour="röt"), Leaf(width=1))
    assert tree == Tree(name="fir", branch=Branch(first=Leaf(width=5), leaves=leaves))
    with pytest.raises(ValidationError, match="frozen"):
        tree.name = "oak"


@pytest.mark.parametrize(
    ("text", "key", "allowed"),
    [
        ("nmae = 1", "nmae", "branch, height_m, name"),
        ("[branch]\nleafs = []", "branch.leafs", "first, leaves, maybe"),
        ("[branch.first]\nwitdh = 1", "branch.first.witdh", "colour, width"),
        ("[branch.maybe]\nwitdh = 1", "branch.maybe.witdh", "colour, width"),
        ("[[branch.leaves]]\n[[branch.leaves]]\nwitdh = 1", "branch.leaves.1.witdh", "colour, width"),
    ],
)
def test_an_unknown_key_names_the_allowed_ones(write, text, key, allowed):
    top, _, rest = text.partition("[")
    with pytest.raises(RecipeError) as caught:
        load(Tree, write(f'name = "fir"\n{top}\n{"[" + rest if rest else ""}'))
    assert f"unknown key '{key}'; allowed here: {allowed}" in str(caught.value)
    assert str(caught.value).endswith(allowed)


def test_a_missing_key_is_named(write):
    path = write("height_m = 1.5")
    with pytest.raises(RecipeError, match="key 'name' is missing") as caught:
        load(Tree, path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('height_m = "tall"', r"height_m: .* \(got 'tall'\)"),
        ("branch = 3", r"branch: .* \(got 3\)"),
        ("branch.first.width = 0", r"branch\.first\.width: .*greater than 0 \(got 0\)"),
        ("branch.leaves = [{ width = 1.5 }]", r"branch\.leaves\.0\.width: .* \(got 1\.5\)"),
    ],
)
def test_a_wrong_value_is_named_with_what_was_given(write, text, message):
    with pytest.raises(RecipeError, match=message):
        load(Tree, write(f'name = "fir"\n{text}'))


def test_further_problems_are_counted(write):
    with pytest.raises(RecipeError, match=r"\(and 2 more\)$"):
        load(Tree, write('height_m = "tall"\nnmae = 1'))


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("height_m=7", 7.0),
        ("height_m = 7.5 ", 7.5),
        ("name=oak", "oak"),
        ('name="oak tree"', "oak tree"),
        ("name= old oak ", "old oak"),
        ("name=a=b", "a=b"),
        ("branch.first.width=9", 9),
        ("branch.maybe.colour=red", "red"),
        ("branch.leaves=[{width = 4}]", (Leaf(width=4),)),
    ],
)
def test_overrides_replace_values(write, override, value):
    tree = load(Tree, write('name = "fir"\nheight_m = 3\n[branch.first]\nwidth = 5'), [override])
    for key in override.partition("=")[0].strip().split("."):
        tree = getattr(tree, key)
    assert tree == value


def test_the_last_override_wins(write):
    assert load(Tree, write('name = "fir"'), ["height_m=1", "height_m=2"]).height_m == 2.0


@pytest.mark.parametrize("override", ["name", "=oak", "branch..width=1", ".name=oak", ""])
def test_an_override_of_another_form_is_refused(write, override):
    with pytest.raises(RecipeError, match=r"is not of the form table\.key=value"):
        load(Tree, write('name = "fir"'), [override])


def test_an_override_does_not_go_through_a_value(write):
    with pytest.raises(RecipeError, match="'height_m' is a value, not a table"):
        load(Tree, write('name = "fir"\nheight_m = 3'), ["height_m.width=1"])


@pytest.mark.parametrize(
    ("override", "first", "second"),
    [
        ("branch.leaves.0.width=9", Leaf(width=9), Leaf(colour="red")),
        ("branch.leaves.1.width = 9", Leaf(width=2), Leaf(width=9, colour="red")),
        ("branch.leaves.1={width = 4}", Leaf(width=2), Leaf(width=4)),
    ],
)
def test_overrides_reach_into_lists(write, override, first, second):
    text = 'name = "fir"\n[[branch.leaves]]\nwidth = 2\n[[branch.leaves]]\ncolour = "red"'
    assert load(Tree, write(text), [override]).branch.leaves == (first, second)


@pytest.mark.parametrize(
    ("override", "allowed"),
    [
        ("branch.leaves.1.width=9", "from 0 to 0, got '1'"),
        ("branch.leaves.-1.width=9", "from 0 to 0, got '-1'"),
        ("branch.leaves.²=9", "from 0 to 0, got '²'"),
        ("branch.leaves.width=9", "from 0 to 0, got 'width'"),
    ],
)
def test_a_position_that_a_list_does_not_have_is_refused(write, override, allowed):
    with pytest.raises(RecipeError, match=rf"branch\.leaves is a list: its positions are {allowed}"):
        load(Tree, write('name = "fir"\n[[branch.leaves]]\nwidth = 2'), [override])
    with pytest.raises(RecipeError, match="positions are none"):
        load(Tree, write('name = "fir"\n[branch]\nleaves = []'), [override])


def test_an_override_is_checked_like_the_file(write):
    path = write('name = "fir"')
    with pytest.raises(RecipeError, match=r"unknown key 'branch.first.witdh'; allowed here: colour, width"):
        load(Tree, path, ["branch.first.witdh=1"])
    with pytest.raises(RecipeError, match=r"height_m: .* \(got 'tall'\)"):
        load(Tree, path, ["height_m=tall"])


def test_a_missing_file_is_one_clear_line(tmp_path):
    with pytest.raises(RecipeError, match=r"none\.toml: cannot be read \(No such file"):
        load(Tree, tmp_path / "none.toml")


def test_nested_values_are_one_clear_line(tmp_path):
    path, deep = tmp_path / "tree.toml", "[" * 10_000 + "]" * 10_000
    path.write_text(f"name = {deep}")
    with pytest.raises(RecipeError, match=r"tree\.toml: is not a recipe: its values are nested too deeply"):
        load(Tree, path)
    path.write_text("a." * 10_000 + "name = 1")
    with pytest.raises(RecipeError, match="nested too deeply"):
        load(Tree, path)
    path.write_text("name = 'oak'")
    with pytest.raises(RecipeError, match="override"):
        load(Tree, path, ["a." * 10_000 + "name=1"])
    with pytest.raises(RecipeError, match="override name: the value is nested too deeply"):
        load(Tree, path, [f"name={deep}"])


@pytest.mark.parametrize(
    "content", [b"name = ", b"name = 'a'\nname = 'b'", b"\xff\xfe", b"name = " + 5000 * b"9"]
)
def test_invalid_toml_is_refused(tmp_path, content):
    path = tmp_path / "tree.toml"
    path.write_bytes(content)
    with pytest.raises(RecipeError, match="is not valid TOML") as caught:
        load(Tree, path)
    assert "\n" not in str(caught.value)


class TestExtends:
    @pytest.fixture
    def chain(self, tmp_path):
        """Writes files by name, the first given extending the second and so on; returns the first's path."""

        def chain(**texts):
            names = list(texts)
            for name, base in zip(names, [*names[1:], None], strict=True):
                first_line = f'extends = "{base}.toml"\n' if base else ""
                (tmp_path / f"{name}.toml").write_text(first_line + texts[name], encoding="utf-8")
            return tmp_path / f"{names[0]}.toml"

        return chain

    def test_values_are_taken_over_key_by_key(self, chain):
        path = chain(
            oak='name = "oak"\nbranch.first.width = 9',
            tree="height_m = 7\nbranch.leaves = [{ width = 4 }]\nbranch.maybe.width = 8",
            plant='name = "plant"\nbranch.first.colour = "red"\nbranch.leaves = [{}, { width = 5 }]',
        )
        first, maybe = Leaf(width=9, colour="red"), Leaf(width=8)
        branch = Branch(first=first, maybe=maybe, leaves=(Leaf(width=4),))
        assert load(Tree, path) == Tree(name="oak", height_m=7, branch=branch)
        assert load(Tree, path, ["branch.first.width=2"]).branch.first == Leaf(width=2, colour="red")

    def test_the_other_file_is_found_from_this_one(self, tmp_path, monkeypatch):
        (tmp_path / "deep").mkdir()
        (tmp_path / "fir.toml").write_text('name = "fir"')
        path = tmp_path / "deep" / "pine.toml"
        path.write_text('extends = "../fir.toml"\nheight_m = 30')
        monkeypatch.chdir(tmp_path / "deep")
        assert load(Tree, path) == load(Tree, "pine.toml") == Tree(name="fir", height_m=30)

    @pytest.mark.parametrize(
        ("texts", "at_fault"),
        [
            ({"oak": "", "tree": 'name = "a"\nnmae = 1'}, "tree"),
            ({"oak": "nmae = 1", "tree": 'name = "a"'}, "oak"),
            ({"oak": "branch.first.width = 2", "tree": 'name = "a"\nbranch.first.witdh = 1'}, "tree"),
            ({"oak": "branch.first.width = 0", "tree": 'name = "a"\nbranch.first.width = 1'}, "oak"),
            ({"oak": "", "tree": 'name = "a"', "plant": "branch.leaves = [{ width = 0 }]"}, "plant"),
            ({"oak": "branch.leaves = [{}]\nname = 1", "tree": "branch.leaves = [{ width = 0 }]"}, "oak"),
            ({"oak": "height_m = 1", "tree": "height_m = 2"}, "oak"),
        ],
    )
    def test_the_file_that_is_wrong_is_named(self, chain, texts, at_fault):
        path = chain(**texts)
        with pytest.raises(RecipeError) as caught:
            load(Tree, path)
        assert str(caught.value).startswith(f"{path.with_name(at_fault)}.toml: ")

    def test_a_list_hides_the_one_below_it(self, chain):
        path = chain(oak='name = "a"\nbranch.leaves = [3]', tree="branch.leaves = [{ width = 0 }]")
        with pytest.raises(RecipeError, match=r"oak\.toml: branch\.leaves\.0"):
            load(Tree, path)

    def test_what_is_left_out_is_not_taken_over(self, chain):
        path = chain(
            oak='without = ["branch.maybe", "height_m", "branch.first.colour"]\nbranch.first.width = 4',
            tree='branch.maybe.width = 8\nbranch.first.colour = "red"',
            plant='name = "plant"\nheight_m = 7\nbranch.maybe.colour = "red"',
        )
        assert load(Tree, path) == Tree(name="plant", branch=Branch(first=Leaf(width=4)))

    @pytest.mark.parametrize(
        ("texts", "message"),
        [
            (
                {"oak": 'without = ["height"]', "tree": 'name = "a"'},
                "lists 'height': no file that it extends has this key",
            ),
            (
                {"oak": 'without = ["name.a"]', "tree": 'name = "a"'},
                "lists 'name.a': no file that it extends has this key",
            ),
            ({"oak": 'without = ["name"]'}, "lists 'name': no file that it extends has this key"),
            ({"oak": 'without = "name"', "tree": 'name = "a"'}, "without must be a list of keys"),
            ({"oak": 'without = ["name"]', "tree": 'name = "a"'}, "key 'name' is missing"),
        ],
    )
    def test_what_cannot_be_left_out_is_one_clear_line(self, chain, texts, message):
        with pytest.raises(RecipeError, match=rf"oak\.toml: .*{message}"):
            load(Tree, chain(**texts))

    @pytest.mark.parametrize("texts", [{"a": "a"}, {"a": "b", "b": "a"}, {"a": "b", "b": "c", "c": "b"}])
    def test_a_circle_is_one_clear_line(self, tmp_path, texts):
        for name, base in texts.items():
            (tmp_path / f"{name}.toml").write_text(f'extends = "./{base}.toml"')
        with pytest.raises(RecipeError, match="is circular") as caught:
            load(Tree, tmp_path / "a.toml")
        assert str(caught.value).startswith(f"{tmp_path / list(texts)[-1]}.toml: extends = ")

    def test_a_missing_file_is_one_clear_line(self, tmp_path):
        path = tmp_path / "a.toml"
        path.write_text('extends = "none.toml"')
        with pytest.raises(
            RecipeError, match=r"none\.toml: cannot be read \(No such .*extended by .*a\.toml"
        ):
            load(Tree, path)

    @pytest.mark.parametrize("value", ["3", '""', '["a.toml"]'])
    def test_what_is_no_path_is_refused(self, tmp_path, value):
        path = tmp_path / "a.toml"
        path.write_text(f"extends = {value}")
        with pytest.raises(RecipeError, match="extends must be the path of another recipe"):
            load(Tree, path)


def test_what_is_written_reads_back(tmp_path):
    tree = Tree(name='a "quoted"\n höt', branch=Branch(first=Leaf(width=4)))
    path = tmp_path / "tree.toml"
    path.write_text(to_toml(tree), encoding="utf-8")
    assert load(Tree, path) == tree


class TestRenamedKeys:
    def test_an_old_key_is_an_error_that_names_the_new_one(self, tmp_path):
        path = tmp_path / "a.toml"
        path.write_text("name = 'a'\noptimizer.clip_norm = 1\njudge = { every = 3, quiet_share = 0.1 }")
        with pytest.raises(RecipeError) as caught:
            load(Tree, path)
        assert str(caught.value) == (
            f"{path}: key 'optimizer.clip_norm' is now 'optimizer.max_grad_norm'; key 'judge.every' is now "
            "'evaluation.every_epochs'; key 'judge.quiet_share' is now 'evaluation.max_false_positive_rate'"
        )

    def test_the_file_and_the_remedy_are_named(self, tmp_path):
        (tmp_path / "a.toml").write_text("extends = 'b.toml'")
        (tmp_path / "b.toml").write_text("name = 'b'\nrun.keep_memory = true")
        with pytest.raises(RecipeError, match=r"b\.toml: key 'run\.keep_memory' has been removed: preload"):
            load(Tree, tmp_path / "a.toml")

    def test_so_are_old_keys_in_lists_overrides_and_without(self, tmp_path):
        path = tmp_path / "a.toml"
        path.write_text("name = 'a'\n[[data.sources]]\npack = 'x'")
        with pytest.raises(RecipeError, match=r"'data\.sources\.shards'"):
            load(Tree, path)
        path.write_text("name = 'a'")
        with pytest.raises(RecipeError, match=r"'model\.init_from'"):
            load(Tree, path, ["model.base=b"])
        (tmp_path / "b.toml").write_text("extends = 'a.toml'\nwithout = ['judge.target']")
        with pytest.raises(RecipeError, match=r"'evaluation\.threshold_target'"):
            load(Tree, tmp_path / "b.toml")
