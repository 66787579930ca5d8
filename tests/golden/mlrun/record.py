"""Ask MLRun's own mock server what is in cases.json, and write its answers to answers.json. Needs mlrun 1.12.1 and nothing of ours.

python tests/golden/mlrun/record.py
"""

import copy
import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def main() -> None:
    sys.path.insert(0, str(HERE))
    from mlrun.serving.server import create_graph_server
    from mlrun.serving.states import RouterStep

    import models

    graph = RouterStep()
    graph.add_route("hooks", class_name="Hooks", model_path=str(HERE / "logged"), k=7)
    graph.add_route("plain:v1", class_name="Plain", model_path="")
    server = create_graph_server(graph=graph, parameters={"color": "red"})
    server.init_states(None, vars(models), is_mock=True)
    server.init_object(vars(models))
    answers = []
    for case in json.loads((HERE / "cases.json").read_text()):
        answer = server.test(f"/v2/models/{case['model']}/{case['operation']}", body=copy.deepcopy(case["body"]), silent=True)
        answers.append({**case, "answer": _told(answer)})
    (HERE / "answers.json").write_text("[\n" + ",\n".join(json.dumps(each) for each in answers) + "\n]\n")


def _told(answer: Any) -> Any:
    """An answer without what differs from run to run; a Response as its status and text."""
    if hasattr(answer, "status_code"):
        return {"status": answer.status_code, "text": answer.body}
    if isinstance(answer, dict) and "timestamp" in answer:
        return {**answer, "timestamp": "now"}
    return answer


if __name__ == "__main__":
    main()
