"""What goes to Kaggle: made, checked, sent.

account, templates     whose it is; the metadata in ``datasets_meta/``, filled in
package                the datasets and the notebooks' folders, under ``build/``; with it
                       ``staging`` (whole or not at all), ``model_datasets``, ``wheel_dataset``
metadata               every rule that Kaggle has, before anything leaves; with it ``problems``,
                       ``dataset_rules``, ``kernel_rules``, ``template_rules``
push                   the official client, shown before it sends; with it ``push_plan``,
                       ``push_view``, ``kaggle_client``, ``outgoing``
"""
