"""Classes that show what MLRun does with its hooks. Run by the original, whose answers are in answers.json, and by us."""

from mlrun.serving import V2ModelServer

import mlrun


class Hooks(V2ModelServer):
    def load(self):
        self.model = self.get_param("k", 0)
        self.get_model(".txt")

    def preprocess(self, request, operation):
        if "refuse" in request:
            raise mlrun.errors.MLRunNotFoundError("nothing by that name")
        return {**request, "steps": [f"preprocess {operation}"]}

    def validate(self, request, operation):
        request = super().validate(request, operation)
        request["steps"].append(f"validate {operation}")
        return request

    def predict(self, request):
        if "fail" in request:
            raise KeyError("fail")
        known = ("id", "inputs", "parameters", "outputs", "model", "operation", "steps", "other")
        return {"request": {name: request[name] for name in known if name in request}, "k": self.model, "depth": self.get_param("depth")}

    def explain(self, request):
        return {"because": request["inputs"], "steps": request["steps"]}

    def postprocess(self, response):
        return {**response, "more": sorted(response)}

    def op_event(self, event):
        body = {name: value for name, value in event.body.items() if name != "background_task_state"}
        return [body, event.path, str(event.method)]

    def op_status(self, event):
        return self.context.Response(body="short and stout", status_code=418)

    def op_params(self, event):
        return [self.get_param(name, "none") for name in ("k", "depth", "color", "nothing")]

    def op_spec(self, event):
        return [self.model_spec.inputs.to_dict(), self.model_spec.outputs.to_dict(), self.model_spec.metrics]


class Plain(V2ModelServer):
    def load(self):
        self.model = 1

    def predict(self, request):
        return request["inputs"]
